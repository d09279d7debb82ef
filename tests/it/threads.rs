//! Threads of the service that panic, each at a moment when it has something to do.
//!
//! Invariant: the service is never half alive. It turns NOT_SERVING, refuses every call, ends with the reason within a bound,
//! and starts again on the same directory.
//! Not here: threads whose death only a unit test can bring about (`server::cores`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use portcullis::config::Config;
use portcullis::engine::clock::{Clock, Source, SystemSource};
use portcullis::engine::{Engine, Options, Stores};
use portcullis::policy::rule as core;
use portcullis::proto::v1::{
    Action, BatchCheckRequest, ConnectionType, CreateRuleRequest, Decision, EraseUserRequest, RenewSessionsRequest,
};
use portcullis::store::disk::RealDisk;
use portcullis::store::journal::{FileJournal, JournalOptions};
use portcullis::store::state::MemoryState;
use portcullis::store::{Batch, Keyspace, Page, StateError, StateStore, StateStores};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::audit_api::check_of;
use crate::audit_disk::Switches;
use crate::audit_engine::{add_rule, check, key, stores};
use crate::harness::{Service, rule};

const DEFAULT: &str = "organizations/default";

/// How long the process may live on after one of its threads.
const END: Duration = Duration::from_secs(8);

/// A clock that panics for the thread of a name.
struct Fragile(Switches);

impl Source for Fragile {
    fn wall(&self) -> i64 {
        self.0.panic_if_told();
        SystemSource.wall()
    }

    fn steady(&self) -> i64 {
        self.0.panic_if_told();
        SystemSource.steady()
    }

    fn boot(&self) -> Option<String> {
        SystemSource.boot()
    }
}

impl Switches {
    fn panic_if_told(&self) {
        let panics = *self.panics.lock().unwrap();
        assert!(panics.is_none() || std::thread::current().name() != panics, "as in a test");
    }
}

/// Gives a thread something to do. What the caller is answered, where there is one.
async fn disturb(service: &Service, switches: &Switches, thread: &str, session: &str) -> Option<Status> {
    match thread {
        "policy-writer" => {
            let request = CreateRuleRequest {
                parent: DEFAULT.to_owned(),
                rule: Some(rule(Action::Deny, "198.51.100.0/24")),
                ..CreateRuleRequest::default()
            };
            service.firewall().create_rule(request).await.err()
        }
        // More than one frame at once: the writer itself writes a lone one.
        "audit-commit" => {
            switches.hangs.store(true, Ordering::SeqCst);
            let preview = || check_of("ada@example.com", "192.0.2.1", ConnectionType::Preview, DEFAULT);
            for _ in 0..2 {
                let requests = (0..10_000).map(|_| preview()).collect();
                service.decisions().batch_check(BatchCheckRequest { requests }).await.unwrap();
            }
            switches.hangs.store(false, Ordering::SeqCst);
            None
        }
        "audit-writer" => {
            let request = check_of("ada@example.com", "192.0.2.1", ConnectionType::Shell, DEFAULT);
            service.decisions().check(request).await.err()
        }
        "session-journal" => {
            let request = RenewSessionsRequest {
                names: vec![session.to_owned()],
                session_lease: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            };
            service.decisions().renew_sessions(request).await.err()
        }
        // It signs by itself; who waits for it is answered.
        "audit-sealer" => {
            let request = EraseUserRequest {
                parent: DEFAULT.to_owned(),
                user_email: "ada@example.com".to_owned(),
                ..EraseUserRequest::default()
            };
            service.audit().erase_user(request).await.err()
        }
        _ => None,
    }
}

/// Waits until health says `NOT_SERVING` or cannot be asked any more.
async fn until_not_serving(service: &Service) {
    let mut health = HealthClient::new(service.channel.clone());
    let request = || HealthCheckRequest { service: "portcullis.v1.DecisionService".to_owned() };
    while health.check(request()).await.is_ok_and(|answer| answer.into_inner().status == 1) {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thread_that_panics_ends_the_service_and_the_next_start_serves() {
    for thread in ["policy-writer", "session-keeper", "audit-writer", "audit-commit", "audit-sealer", "session-journal"]
    {
        let temporary = tempfile::tempdir().unwrap();
        let config = Config::for_data_dir(temporary.path().join("data"));
        let switches = Switches::default();
        let clock = Clock::new(Arc::new(Fragile(switches.clone())));
        let service = Service::with_disk(config.clone(), clock, Arc::new(switches.clone())).await;
        let session = service.check("192.0.2.1", DEFAULT).await.session;
        let channel = service.channel.clone();

        *switches.panics.lock().unwrap() = Some(thread);
        let began = Instant::now();
        let answer = timeout(END, disturb(&service, &switches, thread, &session)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{thread}: a caller was never answered"));
        if let Some(status) = answer {
            assert!([Code::Unavailable, Code::Unknown].contains(&status.code()), "{thread}: {status:?}");
        } else {
            assert!(
                !["policy-writer", "audit-writer", "audit-sealer", "session-journal"].contains(&thread),
                "{thread}"
            );
        }
        timeout(END, until_not_serving(&service)).await.unwrap_or_else(|_| panic!("{thread}: health says SERVING"));
        let late = check_of("ada@example.com", "192.0.2.1", ConnectionType::Shell, DEFAULT);
        let late = service.decisions().check(late).await.expect_err("a service that has failed decides nothing");
        assert!([Code::Unavailable, Code::Unknown].contains(&late.code()), "{thread}: {late:?}");

        let ended = timeout(END, service.ended()).await.unwrap_or_else(|_| panic!("{thread}: the service lives on"));
        let error = format!("{:#}", ended.expect_err("it ended as if it had been told to"));
        assert!(error.contains(&format!("the thread `{thread}` panicked")), "{error}");
        assert!(began.elapsed() < END, "{thread}: {:?}", began.elapsed());
        drop(channel);

        let service = Service::with_config(config).await;
        assert_eq!(service.check("192.0.2.1", DEFAULT).await.decision(), Decision::Allow, "{thread}");
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_does_not_end_after_a_thread_says_which_one_it_was() {
    let temporary = tempfile::tempdir().unwrap();
    let switches = Switches::default();
    let clock = Clock::new(Arc::new(Fragile(switches.clone())));
    let config = Config::for_data_dir(temporary.path().join("data"));
    let service = Service::with_disk(config, clock, Arc::new(switches.clone())).await;
    switches.hangs.store(true, Ordering::SeqCst);
    // Its record is written while the engine closes.
    let preview = check_of("ada@example.com", "192.0.2.1", ConnectionType::Preview, DEFAULT);
    service.decisions().check(preview).await.unwrap();
    *switches.panics.lock().unwrap() = Some("audit-sealer");
    let ended = tokio::spawn(timeout(END, service.ended()));
    let ended = ended.await.unwrap().expect("the service lives on");
    switches.hangs.store(false, Ordering::SeqCst);
    let error = format!("{:#}", ended.expect_err("it ended as if it had been told to"));
    assert!(error.contains("the thread `audit-sealer` panicked"), "{error}");
    assert!(error.contains("does not end"), "{error}");
}

/// A copy of the policy whose keeper panics at its first change. It has no clock that could panic for it.
#[derive(Clone, Default)]
struct FragileCopy {
    copy: Arc<MemoryState>,
    /// Closing it waits meanwhile, as for a disk that does not answer.
    held: Arc<AtomicBool>,
}

impl Drop for FragileCopy {
    fn drop(&mut self) {
        while self.held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl StateStores for FragileCopy {
    fn open(&self) -> Result<Box<dyn StateStore>, StateError> {
        Ok(Box::new(self.clone()))
    }
}

impl StateStore for FragileCopy {
    fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.copy.get(keyspace, key)
    }

    fn apply(&self, batch: &Batch) -> Result<(), StateError> {
        assert_ne!(std::thread::current().name(), Some("policy-follower"), "as in a test");
        self.copy.apply(batch)
    }

    fn scan(&self, keyspace: Keyspace, from: &[u8], entries_max: usize) -> Result<Page, StateError> {
        self.copy.scan(keyspace, from, entries_max)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.copy.flush()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_of_the_copy_that_panics_fails_the_engine_at_once_and_every_call_is_refused() {
    let held = Arc::new(AtomicBool::new(false));
    let directory = tempfile::tempdir().unwrap();
    for name in ["policy", "audit", "sessions"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    let policy = FileJournal::open(Arc::new(RealDisk), directory.path().join("policy"), JournalOptions::default());
    let stores = stores(Box::new(policy.unwrap()), Arc::new(RealDisk), directory.path(), key(1));
    let copy = FragileCopy { copy: Arc::default(), held: Arc::clone(&held) };
    let stores = Stores { state: Box::new(copy), ..stores };
    let engine = Engine::open(stores, Options::default(), Clock::system()).unwrap();
    let mut failure = engine.failure();
    held.store(true, Ordering::SeqCst);
    add_rule(&engine, "any", core::Action::Deny, "198.51.100.0/24").await;
    let reason = timeout(END, failure.wait_for(Option::is_some)).await;
    let reason = reason.unwrap_or_else(|_| {
        held.store(false, Ordering::SeqCst);
        panic!("it goes on without its thread")
    });
    let reason = reason.unwrap();
    assert_eq!(reason.as_deref(), Some("the thread `policy-follower` panicked"));
    drop(reason);
    check(&engine, "ada@example.com", "192.0.2.1", core::ConnectionType::Shell, DEFAULT)
        .await
        .expect_err("an engine that has failed decides nothing");
    held.store(false, Ordering::SeqCst);
    engine.close();
}

/// A machine whose wall clock panics once it is told to.
#[derive(Default)]
struct FragileWall {
    /// In microseconds.
    steady: AtomicI64,
    ahead: AtomicI64,
    panics: AtomicBool,
}

impl Source for FragileWall {
    fn wall(&self) -> i64 {
        assert!(!self.panics.load(Ordering::SeqCst), "as in a test");
        self.steady() + self.ahead.load(Ordering::SeqCst)
    }

    fn steady(&self) -> i64 {
        self.steady.load(Ordering::SeqCst)
    }

    fn boot(&self) -> Option<String> {
        None
    }
}

#[test]
fn a_panic_while_the_clock_is_corrected_stops_nobody_who_reads_it() {
    let source = Arc::new(FragileWall::default());
    let clock = Clock::new(Arc::clone(&source) as Arc<dyn Source>);
    source.ahead.store(3_600_000_000, Ordering::SeqCst);
    assert!(clock.follow().is_none(), "it has not lasted");
    source.steady.store(61_000_000, Ordering::SeqCst);
    source.panics.store(true, Ordering::SeqCst);
    catch_unwind(AssertUnwindSafe(|| clock.correct())).unwrap_err();
    let (tell, told) = channel();
    let reader = clock.clone();
    // Detached: it would never end.
    std::thread::spawn(move || tell.send(reader.now()));
    told.recv_timeout(END).expect("the clock cannot be read any more");
    source.panics.store(false, Ordering::SeqCst);
    assert!(clock.correct().is_some());
}
