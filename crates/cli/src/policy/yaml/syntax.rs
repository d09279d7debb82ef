//! Syntax errors of YAML in plain words: what is wrong at which place, and what to check.
//!
//! Invariant: no words of the parser reach a reader.
//! Not here: faults of the values (`walk`).

use granit_parser::{ErrorKind, ScanError};

use super::Position;
use super::build::place;

/// Where the error is, and what is wrong there. `bracket` is the place of the outermost bracket that is open.
pub(super) fn explain(text: &str, error: &ScanError, bracket: Option<Position>) -> (Position, String) {
    let at = place(error.marker());
    let line = |number: u32| usize::try_from(number).ok().and_then(|number| text.lines().nth(number.saturating_sub(1)));
    // The parser may notice an address only on the line below it.
    for number in [at.line, at.line.saturating_sub(1)] {
        if let Some((column, address)) = line(number).and_then(unquoted_address) {
            let message = format!("`{address}` ends in a colon: quote it, as in `\"{address}\"`");
            return (Position { line: number, column }, message);
        }
    }
    let begins_with_tab = line(at.line).and_then(|line| line.strip_prefix(' ').unwrap_or(line).chars().next());
    if begins_with_tab == Some('\t') && !matches!(error.kind(), ErrorKind::UnclosedQuotedScalar) {
        let spaces = line(at.line).map_or(0, |line| line.chars().take_while(|char| *char == ' ').count());
        let column = u32::try_from(spaces + 1).unwrap_or(1);
        return (Position { column, ..at }, "a tab stands in the indentation: indent with spaces".to_owned());
    }
    match bracket {
        Some(Position { line, column }) if line < at.line && is_out_of_place(error.kind()) => {
            (at, format!("the bracket in line {line}, column {column} is not closed before this place"))
        }
        _ => (at, reason(error.kind())),
    }
}

/// Whether a key or a value stands where none may.
fn is_out_of_place(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::MappingValueNotAllowed
            | ErrorKind::InvalidColonPlacement
            | ErrorKind::MappingKeyNotAllowed
            | ErrorKind::InvalidSimpleKey
            | ErrorKind::SimpleKeyExpected
            | ErrorKind::UnclosedFlowCollection { .. }
            | ErrorKind::UnexpectedEofFlowSequence
            | ErrorKind::UnexpectedEofFlowMapping
            | ErrorKind::ExpectedFlowMappingSeparator
            | ErrorKind::ExpectedFlowSequenceSeparator
    )
}

/// An address without quotes that ends in a colon, which YAML takes for the end of a key; and its column.
fn unquoted_address(line: &str) -> Option<(u32, &str)> {
    let is_between = |character: char| character.is_whitespace() || matches!(character, ',' | '[' | ']' | '{' | '}');
    let mut column = 1;
    let mut found = None;
    for word in line.split(is_between) {
        if word.starts_with('#') {
            break;
        }
        if ends_in_colon(word) {
            found = Some((u32::try_from(column).unwrap_or(u32::MAX), word));
            break;
        }
        column += word.chars().count() + 1;
    }
    found
}

/// Whether a text is an IPv6 address that ends in a colon.
pub(in crate::policy) fn ends_in_colon(text: &str) -> bool {
    text.ends_with(':') && text.parse::<std::net::Ipv6Addr>().is_ok()
}

fn reason(kind: &ErrorKind) -> String {
    let text = match kind {
        ErrorKind::UnexpectedCharacter { character } => {
            let shown = character.escape_default();
            return format!("a text cannot begin with `{shown}` here: quote it");
        }
        ErrorKind::UnclosedFlowCollection { open } => return format!("`{open}` is opened and never closed"),
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            return format!("`{open}` is closed by `{close}`: check the brackets");
        }
        ErrorKind::DirectiveDisallowed => {
            "a line that begins with `%` is a directive, which a policy file has none of: leave it out, or quote the text"
        }
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => "a tab stands where only spaces may: indent with spaces",
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            "a quote is opened and never closed"
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            "something follows a closing quote: quote the whole text"
        }
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidLowSurrogateHexEscape
        | ErrorKind::InvalidLowSurrogate
        | ErrorKind::MissingLowSurrogate
        | ErrorKind::UnpairedLowSurrogate
        | ErrorKind::InvalidUnicodeEscape => {
            "a backslash between double quotes begins an escape that is unknown: write it twice, or use single quotes"
        }
        ErrorKind::MissingAnchorOrAliasName => "a text that begins with `*` or `&` must be quoted",
        ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator => {
            "a comma or a closing bracket is missing between `[ ]` or `{ }` before this place"
        }
        ErrorKind::MisplacedFlowCollectionEnd => "a bracket is closed that was not opened: check the brackets",
        ErrorKind::RecursionLimitExceeded => "the values are nested deeper than in any policy: check the brackets",
        _ if is_out_of_place(kind) => {
            "a key is not expected here, or lacks its colon: check the indentation, and quote a text with a `: ` in it"
        }
        ErrorKind::InvalidIndentation
        | ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::BlockSequenceEntryNotAllowed
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::InvalidBlockScalarIndent => {
            "the indentation does not fit the lines above: the keys of one object, and the items of one list, begin in \
             the same column"
        }
        ErrorKind::UndeclaredTagHandle | ErrorKind::ExpectedTagBang | ErrorKind::InvalidTagTerminator => {
            "`!` begins a tag, which a policy file has none of: quote a text that begins with `!`"
        }
        _ => "this is not YAML: check indentation, brackets and quotes here and on the line above",
    };
    text.to_owned()
}
