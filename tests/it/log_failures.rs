//! What the log says while the audit log cannot be written.
//!
//! Invariant: it says what becomes of Checks, as configured. Every refusal and every denial is counted, those too that have
//! no record.
//! Not here: what callers are answered (`audit_disk`), other lines (`log_lines`).

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::config::Config;
use portcullis::engine::clock::Clock;
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{ConnectionType, Decision};
use tonic::Code;
use tracing_subscriber::fmt::MakeWriter;

use crate::audit_api::check_of;
use crate::audit_disk::Switches;
use crate::ending::{BOUND, create_rule, until_health};
use crate::harness::{Service, assert_error};
use crate::process::Process;

const DEFAULT: &str = "organizations/default";

/// The log of the thread that it is set for.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// On one thread: the tally is told on it.
#[tokio::test]
async fn checks_that_are_refused_after_they_were_decided_are_counted() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
    let _subscribed = tracing::subscriber::set_default(subscriber);
    let temporary = tempfile::tempdir().unwrap();
    let switches = Switches::default();
    let mut config = Config::for_data_dir(temporary.path().join("data"));
    config.record.audit_deadline = Duration::from_millis(300);
    let service = Service::with_disk(config, Clock::system(), Arc::new(switches.clone())).await;
    switches.hangs.store(true, Ordering::SeqCst);
    let ask = || check_of("ada@example.com", "192.0.2.1", ConnectionType::Shell, DEFAULT);
    let (mut first, mut second, mut streaming) = (service.decisions(), service.decisions(), service.decisions());
    let streamed = async {
        let mut answers = streaming.stream_check(tokio_stream::iter([ask()])).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap()
    };
    let (first, second, streamed) = tokio::join!(first.check(ask()), second.check(ask()), streamed);
    assert_error(first, Code::Unavailable, "AUDIT_NOT_WRITABLE");
    assert_error(second, Code::Unavailable, "AUDIT_NOT_WRITABLE");
    assert!(streamed.error.is_some());
    switches.hangs.store(false, Ordering::SeqCst);
    service.stop().await;
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for counted in [" Check AUDIT_NOT_WRITABLE 2", " StreamCheck AUDIT_NOT_WRITABLE 1"] {
        assert!(log.contains(counted), "{counted} is missing:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_allow_the_log_says_so_and_counts_denials_without_a_record() {
    let temporary = tempfile::tempdir().unwrap();
    let arguments = ["--on-audit-failure", "allow", "--audit-shell", "async"];
    let service = Process::start_with(&temporary.path().join("data"), &arguments);
    let channel = service.connect().await;
    create_rule(&channel).await.unwrap();
    service.limit_files();
    let mut decisions = DecisionServiceClient::new(channel.clone());
    let ask = |ip: &str| check_of("ada@example.com", ip, ConnectionType::Shell, DEFAULT);
    assert_eq!(decisions.check(ask("192.0.2.1")).await.unwrap().into_inner().decision(), Decision::Allow);
    until_health(&channel, 2).await;
    for (ip, decision) in [("192.0.2.1", Decision::Allow), ("198.51.100.1", Decision::Deny)] {
        assert_eq!(decisions.check(ask(ip)).await.unwrap().into_inner().decision(), decision);
    }
    let (status, log) = service.terminate_within(BOUND + Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(1), "what is not on record is told:\n{log}");
    let failed: Vec<_> = log.lines().filter(|line| line.contains("the audit log cannot be written: ")).collect();
    assert!(failed[0].contains("Checks are decided without a record until it can"), "{failed:?}");
    assert!(!log.contains("not let through"), "{log}");
    assert!(log.contains("denied once in the last "), "{log}");
}
