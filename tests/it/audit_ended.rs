//! Sessions that are ended again, long after their end.
//!
//! Invariant: looking for them reads no more of the log than is needed, and never takes all processors.
//! Not here: ending sessions that are active (`audit_api`).

use std::future::Future;
use std::task::{Context, Poll, Waker};

use portcullis::audit::session::SessionId;
use portcullis::engine::Engine;
use portcullis::engine::audit::AuditError;
use portcullis::policy::name::Id;
use portcullis::policy::rule::ConnectionType;

use crate::audit_engine::{DEFAULT, another_unit, check, key, open, sealed_files, signed, small_units};

const NEVER: SessionId = SessionId { boot: 1, number: 1 };

async fn end(engine: &Engine, id: SessionId) -> Result<bool, AuditError> {
    let ended = engine.end_session(&Id::parse("default").unwrap(), id).await?;
    Ok(ended.is_some_and(|session| session.record.id == id))
}

/// Hazard: a portal that was away closes thousands of sessions that have ended meanwhile, and each of them is looked for
/// in the whole log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_session_is_looked_for_in_no_unit_behind_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), key(1), small_units());
    for _ in 0..3 {
        another_unit(&engine, directory.path()).await;
    }
    let answer = check(&engine, "ada@example.com", "198.51.100.2", ConnectionType::Shell, DEFAULT).await.unwrap();
    let id = answer.session.unwrap();
    assert_eq!(end(&engine, id).await, Ok(true));
    another_unit(&engine, directory.path()).await;
    engine.close();
    drop(engine);

    // Opened anew, so that no file is open yet; then all but the newest unit cannot be read.
    let engine = open(directory.path(), key(1), small_units());
    let audit = directory.path().join("audit");
    let units = sealed_files(&audit).list().unwrap();
    assert!(units.len() >= 3, "{units:?}");
    for first in &units[..units.len() - 1] {
        std::fs::write(audit.join(format!("{first:020}.seg")), b"").unwrap();
    }
    assert_eq!(end(&engine, id).await, Ok(true));
    let everywhere = end(&engine, NEVER).await;
    assert!(matches!(everywhere, Err(AuditError::NotReadable(_))), "{everywhere:?}");
}

/// Hazard: each call that looks takes a thread, and all of them together every processor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_a_few_look_for_ended_sessions_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let engine = open(directory.path(), key(1), small_units());
    another_unit(&engine, directory.path()).await;
    // What signs a record that came after the unit's file has let go of the unit in memory: only files take time to read.
    check(&engine, "ada@example.com", "198.51.100.2", ConnectionType::Shell, DEFAULT).await.unwrap();
    signed(&engine).await;
    let mut calls: Vec<_> = (0..2_000).map(|_| Box::pin(end(&engine, NEVER))).collect();
    // All begin before anyone goes on, but for those whose turn comes at once.
    let mut refused = 0;
    calls.retain_mut(|call| match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => true,
        Poll::Ready(Err(AuditError::Busy)) => {
            refused += 1;
            false
        }
        Poll::Ready(answer) => {
            assert_eq!(answer, Ok(false));
            false
        }
    });
    assert!(refused > 0, "nobody was refused");
    // 256 wait at most, and as many again may have been read for meanwhile.
    assert!(calls.len() <= 512, "{} wait", calls.len());
    for call in calls {
        assert_eq!(call.await, Ok(false));
    }
    assert_eq!(end(&engine, NEVER).await, Ok(false), "there is room again");
}
