//! The effect of a change as text: changed objects, gained and lost access, refusals.
//!
//! Invariant: what the answer has and the text has not is counted in a line; what the server has left out is counted too,
//! or a line says that there is more. What was not done is told with "would".
//! Not here: computing the effect, which the server does; the access that is gained and lost (`difference`).

use super::advice::of_problem;
use super::alterations;
use super::color::{Colors, Look};
use super::consequences::{REQUIRED_PROJECTS, requires_projects_anew};
use super::difference::{self, Told};
use super::record;
use super::table::{self, clean, rest, word};
use super::times::rfc3339;
use portcullis_proto::v1;

/// The most sessions or users that a list in the text shows.
const NAMES_SHOWN: usize = 8;

/// The most problems of one kind of list that the text shows.
const PROBLEMS_SHOWN: usize = 20;

/// A preview, the most important first: what refuses it, what it changes, who gets in or is kept out, whose sessions end,
/// and last what it leaves untidy.
pub(super) fn preview(preview: &v1::PreviewChangeResponse, colors: Colors) -> String {
    let mut text = vec![refusals(&preview.refusals, colors)];
    if preview.changes.is_empty() {
        text.push("nothing would change\n".to_owned());
    }
    let is_silent = preview.differences.is_empty() && !preview.truncated && !preview.changes.is_empty();
    text.push(changes(&preview.changes, Told::Would));
    text.push(side_effects(&preview.changes, colors));
    text.push(difference::text(&preview.differences, Told::Would, colors));
    text.extend(is_silent.then(|| "\nnobody would gain or lose access\n".to_owned()));
    text.push(revocations(preview, colors));
    text.extend(preview.replay.as_ref().map(replayed));
    let (errors, others): (Vec<_>, Vec<_>) =
        preview.problems_added.iter().partition(|problem| problem.severity() == v1::Severity::Error);
    text.push(problems(
        "problems that would come",
        &errors.into_iter().chain(others).collect::<Vec<_>>(),
        Look::Yellow,
        colors,
    ));
    text.push(problems(
        "problems that would go",
        &preview.problems_resolved.iter().collect::<Vec<_>>(),
        Look::Green,
        colors,
    ));
    if preview.truncated {
        text.push(
            "\nthe server left something out, because the answer would be too large: there is more than this\n".into(),
        );
    }
    text.concat()
}

/// Two revisions.
pub(super) fn revisions(compared: &v1::CompareRevisionsResponse, colors: Colors) -> String {
    let mut text = vec![changes(&compared.changes, Told::Is)];
    if compared.changes.is_empty() {
        text.push("nothing differs\n".to_owned());
    }
    text.push(difference::text(&compared.differences, Told::Is, colors));
    if compared.differences.is_empty() && !compared.truncated && !compared.changes.is_empty() {
        text.push("\nnobody gains or loses access from now on\n".to_owned());
    }
    if compared.truncated {
        text.push(
            "\nthe server left something out, because the answer would be too large: there is more than this\n".into(),
        );
    }
    text.concat()
}

/// The changed objects, one a line.
pub(super) fn changes(changes: &[v1::ObjectChange], told: Told) -> String {
    changes.iter().map(|change| clean(&(record::change(change, told) + &settings(change))) + "\n").collect()
}

/// Which settings of an object are altered, after a colon; empty where none can be told.
fn settings(change: &v1::ObjectChange) -> String {
    let Some((before, after)) = change.before.as_ref().zip(change.after.as_ref()) else { return String::new() };
    let altered = alterations::of(before, after);
    if altered.is_empty() { String::new() } else { format!(": {}", altered.join(", ")) }
}

/// The revocations that a change would cause, at once and later.
fn revocations(preview: &v1::PreviewChangeResponse, colors: Colors) -> String {
    let v1::PreviewChangeResponse { revocation_count: count, later_revocation_count: later, revoked_sessions, .. } =
        preview;
    if *count == 0 {
        return String::new();
    }
    let sessions = if *count == 1 { "active session" } else { "active sessions" };
    let when = match count - later {
        _ if *later == 0 => String::new(),
        0 => " at a later moment, where they last until then".to_owned(),
        now => format!(": {now} at once, {later} at a later moment where they last until then"),
    };
    let line = format!("\n{count} {sessions} would be revoked{when}\n");
    let mut text = vec![colors.paint(Look::Red, &line)];
    text.extend(revoked_sessions.iter().take(NAMES_SHOWN).map(|session| format!("  {}\n", clean(session))));
    text.push(rest(usize::try_from(*count).unwrap_or(usize::MAX), NAMES_SHOWN, "session"));
    text.concat()
}

/// What a change would do besides, without that it was typed.
fn side_effects(changes: &[v1::ObjectChange], colors: Colors) -> String {
    let line = |name: String| {
        let line = format!("{} would require projects: {REQUIRED_PROJECTS}", clean(&name));
        format!("{}\n", colors.paint(Look::Yellow, &line))
    };
    requires_projects_anew(changes).map(line).collect()
}

fn refusals(refusals: &[v1::Refusal], colors: Colors) -> String {
    let line = |refusal: &v1::Refusal| {
        let reason = word(refusal.reason().as_str_name(), "ERROR_REASON_");
        let moment = moment(&refusal.message, refusal.from_time.as_ref());
        format!("{} {reason}: {}{moment}\n", colors.paint(Look::Red, "would be refused:"), clean(&refusal.message))
    };
    let lines: String = refusals.iter().map(line).collect();
    if lines.is_empty() { lines } else { lines + "\n" }
}

/// When something begins, where its message does not say so.
fn moment(message: &str, from: Option<&prost_types::Timestamp>) -> String {
    let Some(from) = from else { return String::new() };
    if message.contains(&rfc3339(from)) || message.contains(&table::time(Some(from))) {
        return String::new();
    }
    format!(" (from {} on)", rfc3339(from))
}

fn replayed(replay: &v1::Replay) -> String {
    let v1::Replay { decision_count, newly_denied_count, newly_permitted_count, users, user_count, .. } = replay;
    let connections = if *decision_count == 1 { "connection that was" } else { "connections that were" };
    let since = table::time(replay.from_time.as_ref());
    // Both sides are policies: what was decided then may have been decided by an earlier one.
    let begin = format!("\nof {decision_count} {connections} checked since {since}, the changed policy would");
    let text = match (newly_denied_count, newly_permitted_count) {
        (0, 0) => format!("{begin} decide none differently from the present one\n"),
        (denied, permitted) => format!(
            "{begin} decide some differently from the present one: {denied} would be denied and {permitted} allowed \
             instead\n"
        ),
    };
    let mut text = vec![text];
    for user in users.iter().take(NAMES_SHOWN) {
        let email = if user.user_email.is_empty() { "(nobody named)" } else { &user.user_email };
        let (denied, permitted) = (user.newly_denied_count, user.newly_permitted_count);
        text.push(format!("  {}: {denied} would be denied, {permitted} allowed\n", clean(email)));
    }
    text.push(rest(usize::try_from(*user_count).unwrap_or_default(), NAMES_SHOWN, "user"));
    if replay.truncated {
        text.push("  the log is longer than could be read in time: these are the newest connections\n".to_owned());
    }
    text.concat()
}

fn problems(what: &str, problems: &[&v1::Problem], look: Look, colors: Colors) -> String {
    let mut text = if problems.is_empty() { Vec::new() } else { vec![format!("\n{}\n", colors.paint(look, what))] };
    for problem in problems.iter().take(PROBLEMS_SHOWN) {
        let code = word(problem.code().as_str_name(), "PROBLEM_CODE_");
        let moment = moment(&problem.message, problem.from_time.as_ref());
        text.push(format!("  {code} {}: {}{moment}\n", clean(&problem.resource), clean(&of_problem(problem))));
    }
    text.push(rest(problems.len(), PROBLEMS_SHOWN, "problem"));
    text.concat()
}
