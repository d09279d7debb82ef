//! A correction of the clock and then a kill: what a start makes of records of before the correction and after it.
//!
//! Guards against: leases that never run out, renewals and matches that are lost.
//! Not here: when the clock is corrected (`clock_follows`), ages (`clock_corrected`).

use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::session::SessionId;
use portcullis::engine::Engine;
use portcullis::engine::sessions::Renewed;
use portcullis::policy::name::Id;
use portcullis::policy::plan::Mutation;
use portcullis::policy::rule::{Action, ConnectionType};

use crate::audit_engine::{DEFAULT, add_rule, change, check, settle, small_units};
use crate::clock::{Hand, until};
use crate::clock_corrected::{correct, shell};
use crate::clock_follows::A_LOOK;
use crate::faults_disk::{Store, Surroundings};
use crate::store_disk::Survival;

const DAY: i64 = 86_400;

/// An engine that is killed and started again.
struct Killed {
    surroundings: Surroundings,
    hand: Hand,
    engine: Arc<Engine>,
}

impl Killed {
    fn start() -> Self {
        let (surroundings, hand) = (Surroundings::default(), Hand::new());
        let engine = Self::open(&surroundings, &hand);
        Self { surroundings, hand, engine }
    }

    fn open(surroundings: &Surroundings, hand: &Hand) -> Arc<Engine> {
        Arc::new(Engine::open(surroundings.stores().unwrap(), small_units(), hand.clock()).unwrap())
    }

    /// Ends as it should, and starts again.
    fn restart(&mut self) {
        self.engine.close();
        self.engine = Self::open(&self.surroundings, &self.hand);
    }

    fn kill(&mut self, survival: Option<Survival>) {
        self.surroundings.crash(survival, false);
        let killed = std::mem::replace(&mut self.engine, Self::open(&self.surroundings, &self.hand));
        // Its threads find no disk any more.
        std::thread::spawn(move || killed.close());
    }

    async fn renew(&self, session: SessionId, seconds: u64) -> Renewed {
        let sessions = [(organization(), Some(session))];
        self.engine.renew_sessions(&sessions, Duration::from_secs(seconds)).await.unwrap()[0]
    }

    fn active(&self, sessions: &[SessionId]) -> Vec<bool> {
        let is_active = |session: &SessionId| self.engine.sessions().get(&organization(), *session).is_some();
        sessions.iter().map(is_active).collect()
    }

    /// Lets time pass until so many seconds after the start.
    async fn pass_to(&self, began: Duration, seconds: u64, sessions: &[SessionId], expected: &[bool]) {
        let passed = began + Duration::from_secs(seconds);
        self.hand.advance(passed.checked_sub(self.hand.now()).unwrap());
        tokio::time::sleep(A_LOOK).await;
        until(&format!("{expected:?} after {seconds} s"), async || (self.active(sessions) == expected).then_some(()))
            .await;
    }

    async fn denied(&self, ip: &str, times: u32) {
        for _ in 0..times {
            check(&self.engine, "ann@example.com", ip, ConnectionType::Shell, DEFAULT).await.unwrap();
        }
    }

    fn matches(&self) -> Vec<(String, u64)> {
        let published = self.engine.directory().organization("default").unwrap();
        let rules = published.view.organization.rules.iter().enumerate();
        rules.map(|(at, rule)| (rule.id.to_string(), published.view.matches(at).unwrap().count)).collect()
    }
}

fn organization() -> Id {
    Id::parse("default").unwrap()
}

fn counts(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_run_out_on_passing_time_after_a_correction_and_a_kill() {
    for by in [-30 * DAY, 30 * DAY] {
        let mut service = Killed::start();
        let engine = Arc::clone(&service.engine);
        let lease = Duration::from_mins(5);
        let (before, both) = (shell(&engine, lease).await, shell(&engine, lease).await);
        assert_eq!(service.renew(before, 1_000).await, Renewed::Renewed);
        assert_eq!(service.renew(both, 1_000).await, Renewed::Renewed);
        correct(&engine, &service.hand, by).await;
        // 90 seconds have passed.
        let began = service.hand.now().checked_sub(Duration::from_secs(90)).unwrap();
        let after = shell(&engine, lease).await;
        assert_eq!(service.renew(both, 2_000).await, Renewed::Renewed);
        settle(&engine).await;
        for _ in 0..2 {
            service.kill(None);
            assert_eq!(service.active(&[before, both, after]), [true; 3], "{by}");
        }
        let sessions = [before, both, after];
        service.pass_to(began, 380, &sessions, &[true; 3]).await;
        service.pass_to(began, 392, &sessions, &[true, true, false]).await;
        service.pass_to(began, 998, &sessions, &[true, true, false]).await;
        service.pass_to(began, 1_002, &sessions, &[false, true, false]).await;
        assert_eq!(service.renew(both, 3_000).await, Renewed::Renewed);
        assert_eq!(service.renew(before, 3_000).await, Renewed::Lost);
        service.kill(None);
        service.pass_to(began, 2_095, &sessions, &[false, true, false]).await;
        service.pass_to(began, 3_999, &sessions, &[false, true, false]).await;
        service.pass_to(began, 4_004, &sessions, &[false; 3]).await;
        service.engine.close();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matches_after_a_correction_back_are_counted_after_a_kill() {
    let mut service = Killed::start();
    let engine = Arc::clone(&service.engine);
    add_rule(&engine, "kept", Action::Deny, "198.51.100.0/25").await;
    add_rule(&engine, "again", Action::Deny, "198.51.100.128/25").await;
    service.denied("198.51.100.1", 2).await;
    service.denied("198.51.100.200", 3).await;
    correct(&engine, &service.hand, -30 * DAY).await;
    service.denied("198.51.100.1", 4).await;
    service.denied("198.51.100.200", 5).await;
    change(&engine, Mutation::DeleteRule { id: Id::parse("again").unwrap(), etag: None }).await;
    service.hand.advance(Duration::from_secs(1));
    add_rule(&engine, "again", Action::Deny, "198.51.100.128/25").await;
    service.denied("198.51.100.1", 1).await;
    service.denied("198.51.100.200", 7).await;
    let expected = counts(&[("kept", 7), ("again", 7)]);
    assert_eq!(service.matches(), expected);
    settle(&engine).await;
    for _ in 0..2 {
        service.kill(None);
        assert_eq!(service.matches(), expected);
    }
    service.engine.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matches_are_counted_whose_records_have_the_sequences_of_records_that_were_lost() {
    let mut service = Killed::start();
    add_rule(&service.engine, "all", Action::Deny, "198.51.100.0/24").await;
    settle(&service.engine).await;
    service.restart();
    // These are counted, and their records are lost: the first change has the counts stored, if they may be.
    service.surroundings.stall(Store::Audit);
    service.denied("198.51.100.1", 20).await;
    let changing = Arc::clone(&service.engine);
    let changing = tokio::spawn(async move { add_rule(&changing, "more", Action::Deny, "203.0.113.0/24").await });
    tokio::time::sleep(A_LOOK).await;
    changing.abort();
    service.kill(Some(Survival::Synced));
    let (rule, stored) = service.matches().swap_remove(0);
    assert!(rule == "all" && [0, 20].contains(&stored), "{stored}: none was acknowledged as durable");
    service.denied("198.51.100.1", 5).await;
    settle(&service.engine).await;
    service.kill(None);
    assert_eq!(service.matches().swap_remove(0), (rule, stored + 5));
    service.engine.close();
}
