//! The announced Internet as one address group in a deny rule, loaded by the command line, against evaluators that
//! share nothing with the service.
//!
//! Ranges are read from the directory that `PORTCULLIS_TEST_DATA` names; without it, seeded ones of the same number are
//! used, and the test says so. Every address is judged by looking up each of its 33 prefixes in a set; some also by a
//! scan of all ranges, and with `PORTCULLIS_CAMPAIGN=long` all of them (give it a release build and some minutes).
//!
//! Invariant: not one of the random addresses gets another answer than the evaluators give.
//! Not here: how fast it is (`benches/decide.rs`).

use std::collections::HashSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{CheckRequest, ConnectionType, Decision};
use tonic::transport::Channel;

use crate::campaign::rounds;
use crate::naive::{Address, Range, parse_range};
use crate::process::{Process, skipped};

/// Addresses that are asked about in the short form and in the long one.
const ADDRESSES: (usize, usize) = (20_000, 100_000);
const RANGES: usize = 564_580;
const IN_FLIGHT: usize = 64;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 32).unwrap()
    }
}

/// The ranges as text, one a line.
fn ranges_text() -> String {
    let Some(directory) = std::env::var_os("PORTCULLIS_TEST_DATA") else {
        skipped("real ranges", "PORTCULLIS_TEST_DATA is not set: seeded ranges are used instead");
        let mut random = Random(7);
        let range = |_| {
            let length = 16 + random.next() % 9;
            let first = random.next() & (u32::MAX << (32 - length));
            format!("{}/{length}\n", std::net::Ipv4Addr::from_bits(first))
        };
        return (0..RANGES).map(range).collect();
    };
    let file = std::fs::File::open(Path::new(&directory).join("asn-ipv4.cidr.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

fn portcullis(process: &Process, arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["--server", &process.address])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether one of the address's prefixes is in the set.
fn covered(prefixes: &HashSet<(u32, u32)>, address: u32) -> bool {
    (0..=32).any(|length| {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        prefixes.contains(&(address & mask, length))
    })
}

async fn denied(channel: Channel, address: u32) -> bool {
    let request = CheckRequest {
        ip: std::net::Ipv4Addr::from_bits(address).to_string(),
        connection_type: ConnectionType::Preview.into(),
        endpoint: "organizations/default".to_owned(),
        ..CheckRequest::default()
    };
    DecisionServiceClient::new(channel).check(request).await.unwrap().into_inner().decision() == Decision::Deny
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_million_ranges_loaded_by_the_command_line_decide_as_the_naive_evaluator() {
    let directory = tempfile::tempdir().unwrap();
    let text = ranges_text();
    let file = directory.path().join("ranges.txt");
    std::fs::File::create(&file).unwrap().write_all(text.as_bytes()).unwrap();
    let process = Process::start(&directory.path().join("data"));
    portcullis(&process, &["groups", "create", "internet", "--file", file.to_str().unwrap()]);
    portcullis(&process, &["rules", "create", "--id", "deny", "--action", "deny", "--group", "internet"]);

    let ranges: Vec<Range> = text.lines().map(|line| parse_range(line).unwrap()).collect();
    assert!(ranges.len() > 500_000);
    let prefixes: HashSet<(u32, u32)> = ranges
        .iter()
        .map(|range| match range {
            Range::V4 { first, len } => (*first, *len),
            Range::V6 { .. } | Range::Any => panic!("IPv4 only"),
        })
        .collect();

    let asked = rounds(ADDRESSES.0, ADDRESSES.1);
    let scans = rounds(100, asked);
    let mut random = Random(42);
    let addresses: Arc<Vec<u32>> = Arc::new((0..asked).map(|_| random.next()).collect());
    let mut expected = Vec::with_capacity(asked);
    for (index, address) in addresses.iter().enumerate() {
        let is_covered = covered(&prefixes, *address);
        if index < scans {
            let scanned = ranges.iter().any(|range| range.contains(Address::V4(*address)));
            assert_eq!(scanned, is_covered, "the evaluators differ");
        }
        expected.push(is_covered);
    }
    let channel = process.connect().await;
    let ask = |client: usize| {
        let (addresses, channel) = (Arc::clone(&addresses), channel.clone());
        tokio::spawn(async move {
            let mut answers = Vec::new();
            for index in (client..asked).step_by(IN_FLIGHT) {
                answers.push((index, denied(channel.clone(), addresses[index]).await));
            }
            answers
        })
    };
    let clients: Vec<_> = (0..IN_FLIGHT).map(ask).collect();
    let (mut differences, mut denials) = (Vec::new(), 0);
    for client in clients {
        for (index, is_denied) in client.await.unwrap() {
            denials += usize::from(is_denied);
            if is_denied != expected[index] {
                differences.push(std::net::Ipv4Addr::from_bits(addresses[index]));
            }
        }
    }
    assert!(differences.is_empty(), "{} of {asked} differ: {differences:?}", differences.len());
    assert!(denials > asked / 10 && denials < asked, "{denials} denials: the addresses prove little");
}
