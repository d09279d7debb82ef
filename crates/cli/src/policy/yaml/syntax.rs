//! Syntax errors of YAML in plain words: what is wrong at which place, and what to check.
//!
//! Invariant: no words of the parser reach a reader.
//! Not here: faults of the values (`walk`).

use granit_parser::{ErrorKind, ScanError};

use super::Position;

/// A character that, once it is replaced, lets the rest of the file be read.
pub(super) struct Repair {
    line: u32,
    /// The column of the character.
    column: u32,
}

impl Repair {
    /// The text with another character in the place, so that all others keep theirs.
    pub(super) fn mend(&self, text: &str) -> Option<String> {
        let before: usize = text.split_inclusive('\n').take(to_usize(self.line) - 1).map(str::len).sum();
        let (before, line) = text.split_at_checked(before)?;
        let (start, wrong) = line.char_indices().nth(to_usize(self.column) - 1)?;
        let (head, tail) = (line.get(..start)?, line.get(start + wrong.len_utf8()..)?);
        Some(format!("{before}{head}_{tail}"))
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).max(1)
}

/// Where the error is, what is wrong there, and what lets the rest be read. `bracket` is the place of the outermost
/// bracket that is open.
pub(super) fn explain(text: &str, error: &ScanError, bracket: Option<Position>) -> (Position, String, Option<Repair>) {
    let at = Position::from(error.marker());
    let line = |number: u32| usize::try_from(number).ok().and_then(|number| text.lines().nth(number.saturating_sub(1)));
    // The parser may notice an address only on the line below it.
    for number in [at.line, at.line.saturating_sub(1)] {
        if let Some((column, address)) = line(number).and_then(unquoted_address) {
            let message = format!("`{address}` ends in a colon: quote it, as in `\"{address}\"`");
            let last = column + u32::try_from(address.len()).unwrap_or(0) - 1;
            return (Position { line: number, column }, message, Some(Repair { line: number, column: last }));
        }
    }
    if let ErrorKind::UnexpectedCharacter { character: '`' | '@' | '%' } = error.kind() {
        return (at, reason(error.kind()), Some(Repair { line: at.line, column: at.column }));
    }
    if let Some((at, message)) = [at.line, at.line.saturating_sub(1)].iter().find_map(|number| {
        let (column, written) = line(*number).and_then(without_space)?;
        Some((Position { line: *number, column }, lacks_space(written)))
    }) {
        return (at, message, None);
    }
    let (at, message) = in_general(error, at, line(at.line), bracket);
    (at, message, None)
}

/// A line that begins with a key and a value without a space between them; and its column.
fn without_space(line: &str) -> Option<(u32, &str)> {
    let word = line.trim_start_matches(['-', ' ']);
    let written = word.split([' ', ',']).next().filter(|written| split_key(written).is_some())?;
    let column = line.chars().count() - word.chars().count() + 1;
    Some((u32::try_from(column).unwrap_or(u32::MAX), written))
}

/// The key and the value of a text such as `action:allow`.
pub(in crate::policy) fn split_key(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once(':')?;
    (super::super::schema::is_key(key) && !value.is_empty()).then_some((key, value))
}

/// What is wrong with `action:allow`.
pub(in crate::policy) fn lacks_space(written: &str) -> String {
    let (key, value) = split_key(written).unwrap_or((written, ""));
    format!("a space is missing behind a colon: write `{key}: {}`", shortened(value))
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Where an error is that has no special cause, and what is wrong there.
fn in_general(error: &ScanError, at: Position, line: Option<&str>, bracket: Option<Position>) -> (Position, String) {
    let begins_with_tab = line.and_then(|line| line.strip_prefix(' ').unwrap_or(line).chars().next());
    if begins_with_tab == Some('\t') && !matches!(error.kind(), ErrorKind::UnclosedQuotedScalar) {
        let spaces = line.map_or(0, |line| line.chars().take_while(|char| *char == ' ').count());
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
        ErrorKind::UnexpectedCharacter { character: '\0' } => {
            "a NUL character stands here: is this a text file, in UTF-8?"
        }
        ErrorKind::UnexpectedCharacter { character: '`' } => "a text cannot begin with a backtick here: quote it",
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
