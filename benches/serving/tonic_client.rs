//! The client that most portals would have: tonic's.
//!
//! Invariant: every answer is waited for and must be a decision.
//! Not here: the client that nobody here wrote (`h2load`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::{BatchCheckRequest, CheckRequest};
use tonic::transport::Channel;

use super::report::Round;
use super::servers::Server;
use crate::portal::nth_check;

/// Asks on all channels for a while.
pub(crate) async fn round(server: &Server, channels: &[Channel], in_flight: usize, time: Duration) -> Round {
    let stop = Arc::new(AtomicBool::new(false));
    let (begun, processor) = (Instant::now(), server.processor());
    let workers = channels.iter().flat_map(|channel| (0..in_flight).map(move |_| channel)).zip(0_u32..);
    let workers = workers.map(|(channel, worker)| {
        let (mut client, stop) = (DecisionServiceClient::new(channel.clone()), Arc::clone(&stop));
        tokio::spawn(async move {
            let (mut times, mut number) = (Vec::new(), worker.wrapping_mul(7_919));
            while !stop.load(Ordering::Relaxed) {
                let asked = nth_check(number);
                number = number.wrapping_add(1);
                let begun = Instant::now();
                client.check(asked).await.unwrap();
                times.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            times
        })
    });
    let workers: Vec<_> = workers.collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await.unwrap());
    }
    Round::new(times, begun.elapsed(), server.processor().saturating_sub(processor))
}

/// Sends so many Checks on one stream, and reads the answers meanwhile.
pub(crate) async fn stream(server: &Server, channel: &Channel, requests: &Arc<[CheckRequest]>, count: usize) -> Round {
    let (begun, processor) = (Instant::now(), server.processor());
    let asked = Arc::clone(requests);
    let asked = (0..count).map(move |number| asked[number % asked.len()].clone());
    let mut client = DecisionServiceClient::new(channel.clone());
    let mut answers = client.stream_check(tokio_stream::iter(asked)).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        assert!(answer.error.is_none());
        answered += 1;
    }
    assert_eq!(answered, count);
    Round::counted(count, begun.elapsed(), server.processor().saturating_sub(processor))
}

/// Sends batches of so many Checks each, two at a time, for a while.
pub(crate) async fn batches(
    server: &Server,
    channel: &Channel,
    requests: &Arc<[CheckRequest]>,
    time: Duration,
) -> Round {
    let (begun, processor) = (Instant::now(), server.processor());
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (mut client, requests) = (DecisionServiceClient::new(channel.clone()), Arc::clone(requests));
            tokio::spawn(async move {
                let mut count = 0;
                while begun.elapsed() < time {
                    let batch = BatchCheckRequest { requests: requests.to_vec() };
                    count += client.batch_check(batch).await.unwrap().into_inner().responses.len();
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for worker in workers {
        count += worker.await.unwrap();
    }
    Round::counted(count, begun.elapsed(), server.processor().saturating_sub(processor))
}
