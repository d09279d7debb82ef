//! What holds whatever happens: the sentences of design.md §2.5, §2.7 and §2.8, each a function.
//!
//! Invariant: each compares what the service shows with what the model knows, and changes neither what the service does
//! nor what was acknowledged.
//! Not here: what happens (`faults_engine`), and the model itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::checkpoint::Checkpoint;
use portcullis::audit::record::{Content, Record, Subject};
use portcullis::engine::Engine;
use portcullis::engine::audit::{AuditError, Verification};
use portcullis::engine::question::Answer;
use portcullis::engine::sessions::Session;
use portcullis::policy::decision::Level;

use crate::faults_actions::{Asked, id};
use crate::faults_disk::{Surroundings, key};
use crate::faults_model::{MAX_AGE, Maybe, Model, State, email_of};
use crate::faults_policy::{has_expiring, policy_of};
use crate::naive;

/// §2.5: a mutation becomes durable, then visible, then acknowledged. What is in force is what was acknowledged; a change
/// that was refused for want of a disk may come with a crash, and one that nobody answered may come late. Rules whose time has
/// passed are marked at some time.
pub(crate) fn every_acknowledged_change_is_there_and_nothing_else(
    model: &mut Model,
    engine: &Engine,
    after_a_crash: bool,
    now: Duration,
) {
    let policy = policy_of(engine);
    if policy == model.policy {
        return;
    }
    if model.explains(&model.policy, &policy, now) {
        model.expired(policy);
        return;
    }
    let is_made = |maybe: &&Maybe| (after_a_crash || maybe.late) && model.explains(&maybe.policy, &policy, now);
    let Some(made) = model.maybe.iter().find(is_made).cloned() else {
        panic!("the policy is not what was acknowledged:\n{policy:#?}\nacknowledged:\n{:#?}", model.policy);
    };
    model.adopt(Maybe { policy, ..made }, now);
}

/// §2.4 and §2.5: a Check that begins after the acknowledgement is decided by it, as the naive evaluator decides.
pub(crate) fn a_check_is_decided_by_what_was_acknowledged(
    model: &mut Model,
    engine: &Engine,
    asked: &Asked,
    answer: &Answer,
    now: Duration,
) {
    let Err((found, expected)) = compare(model, asked, answer, now) else { return };
    // Rules were marked as expired meanwhile.
    every_acknowledged_change_is_there_and_nothing_else(model, engine, false, now);
    let is_right = compare(model, asked, answer, now).is_ok();
    assert!(is_right, "{asked:?} was answered by {found}, not by {expected}");
}

/// An answer as it is and as the naive evaluator gives it.
fn compare(model: &Model, asked: &Asked, answer: &Answer, now: Duration) -> Result<(), (String, String)> {
    let expected = model.decide(asked, now);
    let endpoint = asked.endpoint();
    let path = portcullis::policy::name::NodePath::parse(&endpoint).unwrap();
    let node = answer.level.map(|level| match level {
        Level::Cluster => "cluster".to_owned(),
        Level::Organization => path.ancestor(0).to_owned(),
        Level::Project => path.ancestor(1).to_owned(),
        Level::Workspace => path.ancestor(2).to_owned(),
        Level::Endpoint => path.ancestor(3).to_owned(),
    });
    let found = (
        format!("{:?}", answer.reason),
        answer.rule.as_ref().map(|rule| format!("{}/rules/{rule}", path.ancestor(0))),
        node,
        answer.revision,
        answer.cluster_revision,
    );
    let revision = |revision: i64| u64::try_from(revision).unwrap();
    let naive::Answer { reason, rule, node, .. } = expected;
    let expected =
        (format!("{reason:?}"), rule, node, revision(expected.revision), revision(expected.cluster_revision));
    if found == expected { Ok(()) } else { Err((format!("{found:?}"), format!("{expected:?}"))) }
}

/// §2.8: sequences are dense, what was shown stays, and every decision is recorded at most once. Learns what is new.
pub(crate) fn sequences_are_dense_and_what_was_shown_stays(
    model: &mut Model,
    engine: &Engine,
    from_the_first: bool,
    surroundings: &Surroundings,
) {
    let log = engine.audit();
    let shown = model.log.last_key_value().map_or(0, |(last, _)| *last).max(model.signed);
    assert!(log.newest_sequence() >= shown, "record {shown} was shown, and is gone");
    let learned = model.log.last_key_value().map_or(0, |(last, _)| *last);
    let mut next = if from_the_first { log.first_sequence() } else { learned + 1 };
    loop {
        let records = match log.read(next, usize::MAX) {
            Err(AuditError::Removed { first }) => {
                next = first.max(next);
                continue;
            }
            Err(_) if surroundings.is_off() => return,
            read => read.unwrap(),
        };
        if records.is_empty() {
            return;
        }
        for record in &records {
            assert_eq!(record.sequence, next, "dense");
            next += 1;
            match model.log.get(&record.sequence) {
                None => model.learn(record),
                Some(before) => is_what_was_shown(model, before, record),
            }
        }
    }
}

fn is_what_was_shown(model: &Model, before: &Record, record: &Record) {
    assert_eq!(before.entry, record.entry, "record {} is another one", record.sequence);
    assert_eq!(before.organization_sequence, record.organization_sequence);
    let may_be_erased = || {
        email_of(&before.subject)
            .is_some_and(|email| model.erased.contains_key(email) || model.perhaps_erased.contains(email))
    };
    let same = before.subject == record.subject || (record.subject == Subject::Erased && may_be_erased());
    assert!(same, "record {} is about somebody else", record.sequence);
}

/// §2.8: organizations' sequences are dense, and every change of policy has one record; §2.5: no revision is given out
/// twice, and none is left out.
pub(crate) fn every_change_has_one_record_and_revisions_are_dense(model: &Model, engine: &Engine) {
    let first_kept = engine.audit().first_sequence();
    let mut sequences = BTreeMap::new();
    let mut revisions = BTreeMap::new();
    let mut last_change = None;
    for record in model.log.values() {
        let organization = record.entry.organization.as_ref().map(ToString::to_string);
        if organization.is_some()
            && let Some(before) = sequences.insert(organization.clone(), record.organization_sequence)
        {
            assert_eq!(record.organization_sequence, before + 1, "dense in {organization:?}: {record:?}");
        }
        let Content::PolicyChanged(change) = &record.entry.content else { continue };
        if let Some(last) = last_change.replace(change.policy_sequence) {
            assert_eq!(change.policy_sequence, last + 1, "a change without a record, or with two: {record:?}");
        }
        if let Some(before) = revisions.insert(organization, change.revision) {
            assert_eq!(change.revision, before + 1, "a revision is missing or given out twice: {record:?}");
        }
    }
    let organizations = model.policy.organizations.iter().map(|(id, of)| (Some(id.clone()), of.revision));
    let deleted = model.deleted.iter().map(|(id, revision)| (Some(id.clone()), *revision));
    for (organization, revision) in organizations.chain(deleted).chain([(None, model.policy.cluster_revision)]) {
        match revisions.get(&organization) {
            Some(recorded) => {
                let more = i64::try_from(*recorded).unwrap() - revision;
                // Its rules may have expired just before it was deleted, or since the model learned of it.
                let may_expire = organization.as_ref().is_some_and(|id| {
                    model.deleted.contains_key(id) || model.policy.organizations.get(id).is_some_and(has_expiring)
                });
                assert!(more == 0 || (more == 1 && may_expire), "{recorded} and {revision} of {organization:?}");
            }
            None => assert!(first_kept > 1, "revision {revision} of {organization:?} has no record"),
        }
    }
}

/// §2.8: every acknowledged decision is on the record. Those that are not are asynchronous ones that a crash has cut off,
/// or were let go while nothing could be recorded; a GAP says so, and says of at least as many.
pub(crate) fn every_acknowledged_decision_is_recorded_or_in_a_gap(
    model: &mut Model,
    after_a_crash: bool,
    lets_go: bool,
    queue_records_max: u64,
    first_kept: u64,
) {
    let mut missing = std::mem::take(&mut model.answered);
    // What became durable late was perhaps removed by retention before it was shown.
    missing.retain(|_, (sequence, _)| *sequence == 0 || *sequence >= first_kept);
    if missing.is_empty() {
        return;
    }
    assert!(after_a_crash || lets_go, "answered, and not on the record: {missing:?}");
    let waited: Vec<_> = missing.iter().filter(|(_, (_, waited))| *waited).collect();
    assert!(waited.is_empty(), "decisions had waited for their records, which are gone: {waited:?}");
    let count = missing.len() as u64;
    model.lost += count;
    let admitted = model.admitted_missing();
    // While nothing can be recorded, nobody knows how many more there will be when a crash comes.
    assert!(admitted > 0 && (lets_go || model.lost <= admitted), "{} are missing, {admitted} admitted", model.lost);
    assert!(lets_go || count <= queue_records_max + 1, "{count} were lost at once");
}

/// §2.8: a verifier that has only the files, the key and an older checkpoint finds nothing.
pub(crate) fn the_log_verifies_and_older_checkpoints_hold(model: &Model, surroundings: &Surroundings) {
    for note in &model.notes {
        let Verification { faults, .. } = surroundings.verify(Some(note)).unwrap();
        assert!(faults.is_empty(), "{faults:?}");
    }
}

/// §2.8: only records on disk enter checkpoints. Notes the newest one: from now on what it covers has to be there.
pub(crate) fn checkpoints_cover_only_what_is_durable(model: &mut Model, engine: &Engine) {
    let Ok(note) = engine.audit().checkpoint() else { return };
    let verifier = key().verifier().clone();
    let size = Checkpoint::open(note.as_bytes(), std::slice::from_ref(&verifier), verifier.name()).unwrap().head().size;
    model.signed = size.max(model.signed);
    model.notes.truncate(1);
    model.notes.push(note);
}

/// §2.8: retention removes on the record, and nothing younger than the longest session.
pub(crate) fn nothing_younger_than_the_longest_session_was_removed(model: &mut Model, engine: &Engine, now: Duration) {
    let first = engine.audit().first_sequence();
    let kept = model.log.split_off(&first);
    let removed = std::mem::replace(&mut model.log, kept);
    let Some((last, _)) = removed.last_key_value() else { return };
    let is_said = model.log.values().any(|record| match &record.entry.content {
        Content::Pruned(pruned) => pruned.to_sequence >= *last,
        _ => false,
    });
    assert!(is_said, "records up to {last} are removed, and no record says so");
    for record in removed.values() {
        assert!(model.true_time(record) + MAX_AGE <= now, "record {} was removed too early", record.sequence);
    }
}

/// §2.7: sessions survive; each ends by its end, its deadline or the maximum age, and not before; revocation is final; an
/// address that is denied now has no session that is not revoked. What is not so, if anything: threads may need a moment.
/// Deadlines go by the `even`, true time, and decisions by the decision time.
pub(crate) fn sessions_that_are_not_what_they_must_be(
    model: &Model,
    engine: &Engine,
    now: Duration,
    even: Duration,
) -> Vec<String> {
    let active: BTreeMap<_, Session> = engine
        .sessions()
        .list(None, &|_, _| true, None, usize::MAX)
        .into_iter()
        .map(|session| (session.record.id, session))
        .collect();
    let mut faults = Vec::new();
    for (id, known) in &model.sessions {
        let is_revoked = active.get(id).map(|session| session.record.revocation.is_some());
        let fault = match is_revoked {
            None if known.is_active(even) => "is not there any more",
            Some(true) if !known.may_be_revoked => "is revoked, and was never denied",
            Some(false) if known.state == State::Revoked => "is not revoked any more",
            Some(_) if known.state == State::Ended => "has ended, and is there again",
            Some(_) if even >= known.due().1 => "is due",
            Some(false) if model.denies(known, now) => "would be denied, and is not revoked",
            _ => continue,
        };
        faults.push(format!("session {id} {fault}: {known:?}"));
    }
    faults
}

/// §2.7: an end that was acknowledged is on the record; that it is there once is found when records are shown.
pub(crate) fn every_acknowledged_end_is_recorded(model: &Model, engine: &Engine) {
    // What retention has removed was perhaps never shown.
    if engine.audit().first_sequence() > 1 {
        return;
    }
    for (id, known) in model.sessions.iter().filter(|(_, known)| known.state == State::Ended) {
        assert!(
            model.ended.contains_key(id),
            "the end of session {id} was acknowledged, and is not on the record: {known:?}"
        );
    }
}

/// §2.8: what is shown is durable. A session that is there after a crash was opened on the record.
pub(crate) fn every_session_was_opened_on_the_record(model: &Model, engine: &Engine) {
    let first = engine.audit().first_sequence();
    for session in engine.sessions().list(None, &|_, _| true, None, usize::MAX) {
        let id = session.record.id;
        assert!(
            first > 1 || model.opened.contains_key(&id),
            "session {id} was never opened: {session:?}",
            session = session.record
        );
    }
}

/// §2.8: an erased person is nowhere: in no record before the erasure, no session opened before it, and no file.
pub(crate) fn the_erased_are_nowhere(model: &Model, engine: &Engine, surroundings: &Surroundings) {
    for (email, erased) in &model.erased {
        let mut next = engine.audit().first_sequence();
        while next < erased.sequence {
            let records: Vec<Arc<Record>> = match engine.audit().read(next, usize::MAX) {
                Err(AuditError::Removed { first }) => {
                    next = first;
                    continue;
                }
                Err(_) if surroundings.is_off() => return,
                read => read.unwrap(),
            };
            for record in &records {
                let named = record.sequence < erased.sequence && email_of(&record.subject) == Some(email);
                assert!(!named, "record {} names somebody whom record {} erases", record.sequence, erased.sequence);
                next = record.sequence + 1;
            }
        }
        for session in engine.sessions().list(None, &|_, subject| email_of(subject) == Some(email), None, usize::MAX) {
            let opened = model.opened.get(&session.record.id).copied();
            assert!(
                opened.is_some_and(|opened| opened > erased.sequence),
                "session {} names somebody whom record {} erases; it was opened by {opened:?}",
                session.record.id,
                erased.sequence
            );
        }
        assert!(!erased.unused || !surroundings.holds(email.as_bytes()), "a file names an erased person");
    }
}

/// §2.5: the history has every revision once.
pub(crate) async fn the_history_is_dense(model: &Model, engine: &Engine, surroundings: &Surroundings) {
    for (organization, policy) in &model.policy.organizations {
        let entries = match engine.revisions(&id(organization), None, usize::MAX).await {
            Err(_) if surroundings.is_off() => return,
            entries => entries.unwrap(),
        };
        let revisions: Vec<i64> = entries.iter().map(|entry| i64::try_from(entry.revision).unwrap()).collect();
        let expected: Vec<i64> = (1..=policy.revision).rev().collect();
        assert_eq!(revisions, expected, "{organization}");
    }
}
