//! The effect of a change as text: changed objects, gained and lost access, refusals.
//!
//! Invariant: an answer that was cut is shown with a line that says so.
//! Not here: computing the effect, which the server does.

use super::color::{Colors, Look};
use super::record;
use super::table::{clean, connection_type, word};
use portcullis_proto::v1;

/// The most ranges, sessions or users that a list in the text shows.
const RANGES_SHOWN: usize = 8;

/// A preview.
pub(super) fn preview(preview: &v1::PreviewChangeResponse, colors: Colors) -> String {
    let mut text = vec![changes(&preview.changes)];
    if preview.changes.is_empty() {
        text.push("nothing is altered\n".to_owned());
    }
    text.push(differences(&preview.differences, colors));
    if preview.revocation_count > 0 {
        let count = preview.revocation_count;
        let line = format!("\n{}\n", counted(count, "active session is revoked", "active sessions are revoked"));
        text.push(colors.paint(Look::Red, &line));
        for session in preview.revoked_sessions.iter().take(RANGES_SHOWN) {
            text.push(format!("  {}\n", clean(session)));
        }
    }
    if let Some(replay) = &preview.replay {
        text.push(replayed(replay));
    }
    text.push(problems("problems that come", &preview.problems_added, Look::Yellow, colors));
    text.push(problems("problems that go", &preview.problems_resolved, Look::Green, colors));
    for refusal in &preview.refusals {
        let reason = word(refusal.reason().as_str_name(), "ERROR_REASON_");
        text.push(format!("\n{} {reason}: {}\n", colors.paint(Look::Red, "refused:"), clean(&refusal.message)));
    }
    if preview.truncated {
        text.push("\nthe answer is cut: there is more than this\n".to_owned());
    }
    text.concat()
}

/// Two revisions.
pub(super) fn revisions(compared: &v1::CompareRevisionsResponse, colors: Colors) -> String {
    let mut text = vec![changes(&compared.changes)];
    if compared.changes.is_empty() {
        text.push("nothing differs\n".to_owned());
    }
    text.push(differences(&compared.differences, colors));
    if compared.truncated {
        text.push("\nthe answer is cut: there is more than this\n".to_owned());
    }
    text.concat()
}

/// The changed objects, one a line.
pub(super) fn changes(changes: &[v1::ObjectChange]) -> String {
    changes.iter().map(|change| clean(&record::change(change)) + "\n").collect()
}

/// Gained and lost access. Nodes with the same difference are listed together.
fn differences(differences: &[v1::AccessDifference], colors: Colors) -> String {
    let mut text = Vec::new();
    let mut rest: Vec<&v1::AccessDifference> = differences.iter().collect();
    while let Some(first) = rest.first().copied() {
        let same = |other: &v1::AccessDifference| {
            other.newly_permitted == first.newly_permitted && other.newly_denied == first.newly_denied
        };
        let (alike, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|other| same(other));
        text.push("\n".to_owned());
        for of in &alike {
            text.push(format!("{} ({})\n", clean(&of.node), connection_type(of.connection_type)));
        }
        text.push(flips("+ permitted", &first.newly_permitted, Look::Green, colors));
        text.push(flips("- denied", &first.newly_denied, Look::Red, colors));
        rest = others;
    }
    text.concat()
}

fn flips(what: &str, ranges: &[String], look: Look, colors: Colors) -> String {
    if ranges.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = ranges.iter().take(RANGES_SHOWN).map(|range| clean(range)).collect();
    let more = ranges.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more ranges") } else { String::new() };
    format!("  {}  {}{more}\n", colors.paint(look, what), shown.join(" "))
}

fn replayed(replay: &v1::Replay) -> String {
    let v1::Replay { decision_count, newly_denied_count, newly_permitted_count, users, user_count, .. } = replay;
    let mut text = vec![format!(
        "\nof {}, {newly_denied_count} would have been denied and {newly_permitted_count} allowed instead\n",
        counted(*decision_count, "recorded decision", "recorded decisions")
    )];
    for user in users.iter().take(RANGES_SHOWN) {
        let email = if user.user_email.is_empty() { "(nobody named)" } else { &user.user_email };
        let (denied, permitted) = (user.newly_denied_count, user.newly_permitted_count);
        text.push(format!("  {}: {denied} denied, {permitted} allowed\n", clean(email)));
    }
    let more = usize::try_from(*user_count).unwrap_or_default().saturating_sub(RANGES_SHOWN);
    if more > 0 {
        text.push(format!("  and {more} more users\n"));
    }
    if replay.truncated {
        text.push("  the log is longer than could be read in time: these are the newest decisions\n".to_owned());
    }
    text.concat()
}

fn problems(what: &str, problems: &[v1::Problem], look: Look, colors: Colors) -> String {
    let mut text = if problems.is_empty() { Vec::new() } else { vec![format!("\n{}\n", colors.paint(look, what))] };
    for problem in problems {
        let code = word(problem.code().as_str_name(), "PROBLEM_CODE_");
        text.push(format!("  {code} {}: {}\n", clean(&problem.resource), clean(&problem.message)));
    }
    text.concat()
}

fn counted(count: i64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
