//! Answers as text: aligned columns without borders, and objects with one field a line.
//!
//! Invariant: no text of a policy controls the terminal: control characters are shown escaped.
//! Not here: which columns an answer has, which its command knows.

use comfy_table::{Table, presets};
use prost_types::Timestamp;

use super::advice::of_problem;
use super::times::rfc3339;
use portcullis_proto::v1;

/// Rows below a line of headings.
pub(super) fn grid<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings);
    for row in rows {
        table.add_row(row.map(|cell| clean(&cell)));
    }
    aligned(&mut table)
}

/// Fields of one object, one a line; those without a value are left out.
pub(super) fn record<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for (name, value) in fields {
        if !value.is_empty() {
            table.add_row([name, &clean(&value)]);
        }
    }
    aligned(&mut table)
}

/// Values, one a line.
pub(super) fn lines(values: &[String]) -> String {
    values.iter().map(|value| clean(value) + "\n").collect()
}

/// Problems below a list; empty if there are none.
pub(super) fn problems(problems: &[v1::Problem]) -> String {
    let line = |of: &v1::Problem| problem(of) + "\n";
    if problems.is_empty() { String::new() } else { "\n".to_owned() + &problems.iter().map(line).collect::<String>() }
}

/// A problem in one line.
pub(super) fn problem(problem: &v1::Problem) -> String {
    let message = of_problem(problem);
    let from = match problem.from_time.as_ref().map(|from| time(Some(from))) {
        Some(from) if !message.contains(&from) => format!(" (from {from} on)"),
        _ => String::new(),
    };
    let severity = severity(problem.severity);
    clean(&format!("{severity}: {}: {message}{from}", problem.resource))
}

/// A time to the second; empty if there is none.
pub(super) fn time(time: Option<&Timestamp>) -> String {
    time.map(|time| rfc3339(&Timestamp { seconds: time.seconds, nanos: 0 })).unwrap_or_default()
}

/// The name of an enum value as people type it: without its prefix, in lower case, words joined by `-`.
pub(super) fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase().replace('_', "-")
}

/// A connection type as it is typed.
pub(super) fn connection_type(number: i32) -> String {
    v1::ConnectionType::try_from(number)
        .map_or_else(|_| number.to_string(), |value| word(value.as_str_name(), "CONNECTION_TYPE_"))
}

/// The first of some names, and how many more there are.
pub(super) fn some_of(names: &[String], count: i64) -> String {
    let more = count.saturating_sub(i64::try_from(names.len()).unwrap_or(i64::MAX));
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    clean(&names.join(", ")) + &more
}

/// A number with its thousands apart.
pub(super) fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    text.extend((number < 0).then_some('-'));
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many are left out, as a line; empty where none are.
pub(super) fn rest(count: usize, shown_max: usize, what: &str) -> String {
    match count.saturating_sub(shown_max) {
        0 => String::new(),
        1 => format!("  and 1 more {what}\n"),
        more => format!("  and {} more {what}s\n", number(i64::try_from(more).unwrap_or(i64::MAX))),
    }
}

/// A text with its control characters escaped.
pub(super) fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmful(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Control characters, and those that change the direction of text.
fn is_harmful(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn severity(number: i32) -> String {
    match v1::Severity::try_from(number) {
        Ok(v1::Severity::Unspecified) | Err(_) => "problem".to_owned(),
        Ok(severity) => word(severity.as_str_name(), "SEVERITY_"),
    }
}

/// The lines of a table, without trailing spaces.
fn aligned(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hazard: a description that rewrites the lines above it.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{9b}d\u{202e}e — é"), "a\\u{1b}[2Jb\\nc\\u{9b}d\\u{202e}e — é");
    }

    #[test]
    fn thousands_are_set_apart() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (123_456, "123,456"), (-1_234_567, "-1,234,567")]
        {
            assert_eq!(number(count), text);
        }
    }

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let rows = [["1".to_owned(), "long".to_owned()], ["200".to_owned(), String::new()]];
        assert_eq!(grid(["A", "B"], rows), "A    B\n1    long\n200\n");
    }
}
