//! What a Check costs over the wire, beside a tonic server that does nothing.
//!
//! Run with `cargo bench --bench serving`. Three servers, each a process of its own on loopback: one that answers the same
//! messages with a constant, on tonic's and tokio's defaults; Portcullis with every record queued (`async`); Portcullis
//! with every record on the disk before its answer (`sync`). The same client drives them by turns, several rounds, so that
//! what the machine does meanwhile falls on all alike.
//!
//! Invariant: ratios are of one run; their spread over the rounds is printed beside them, and so is what misses its goal.
//! Not here: deciding in process (`decide`), the record in process (`audit`).
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench that goes wrong ends, takes times, and reports to its terminal"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis::config::{Config, Durability};
use portcullis::proto::v1::decision_service_client::DecisionServiceClient;
use portcullis::proto::v1::decision_service_server::{DecisionService, DecisionServiceServer};
use portcullis::proto::v1::firewall_service_client::FirewallServiceClient;
use portcullis::proto::v1::{self, CheckRequest, CheckResponse};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

/// Says which server a process is to be.
const ROLE: &str = "PORTCULLIS_BENCH_ROLE";

const ROLES: [&str; 3] = ["nothing", "async", "sync"];
const CONNECTIONS: [usize; 3] = [1, 8, 64];
const IN_FLIGHT: [usize; 2] = [1, 32];
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);

/// A tonic server that does nothing.
struct Nothing;

#[tonic::async_trait]
impl DecisionService for Nothing {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        std::hint::black_box(request.into_inner());
        Ok(Response::new(CheckResponse {
            decision: v1::Decision::Allow.into(),
            reason: v1::Reason::DefaultAllow.into(),
            session: "organizations/default/sessions/5ae673e1b4a935de-a1".to_owned(),
            revision: 2,
            cluster_revision: 1,
            decision_id: "5d0b1ad9c3e2f011-1f".to_owned(),
            ..CheckResponse::default()
        }))
    }

    async fn batch_check(&self, _: Request<v1::BatchCheckRequest>) -> Result<Response<v1::BatchCheckResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type StreamCheckStream = tokio_stream::Empty<Result<CheckResponse, Status>>;

    async fn stream_check(
        &self,
        _: Request<Streaming<CheckRequest>>,
    ) -> Result<Response<Self::StreamCheckStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn end_session(&self, _: Request<v1::EndSessionRequest>) -> Result<Response<v1::Session>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn renew_sessions(
        &self,
        _: Request<v1::RenewSessionsRequest>,
    ) -> Result<Response<v1::RenewSessionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Is a server until killed; tells its address on the standard output.
async fn serve(role: &str) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    if role == "nothing" {
        let incoming = TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(DecisionServiceServer::new(Nothing));
        return server.serve_with_incoming(incoming).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::for_data_dir(directory.path());
    let durability = if role == "sync" { Durability::Sync } else { Durability::Async };
    (config.record.audit_shell, config.record.audit_preview) = (durability, durability);
    // Every shell stays open otherwise, and so many of them are no portal.
    config.record.session_max_age = Duration::from_secs(2);
    config.record.session_idle = Duration::from_secs(2);
    config.record.active_sessions_max = 100_000_000;
    portcullis::server::run(config, listener, std::future::pending()).await.unwrap();
}

/// A server as a process, killed when it is dropped.
struct Server {
    role: &'static str,
    child: Child,
    address: String,
}

impl Server {
    fn start(role: &'static str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.env(ROLE, role).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { role, child, address: address.trim().to_owned() }
    }

    /// Processor time so far.
    fn processor(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).unwrap().parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    async fn connect(&self, connections: usize) -> Vec<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap().tcp_nodelay(true);
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(endpoint.connect().await.unwrap());
        }
        channels
    }

    /// Waits until it answers, and gives Portcullis something to decide.
    async fn prepare(&self) {
        let channel = self.connect(1).await.remove(0);
        while DecisionServiceClient::new(channel.clone()).check(request(1)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if self.role != "nothing" {
            let rule = v1::Rule {
                action: v1::Action::Deny.into(),
                source: Some(v1::rule::Source::Range("10.0.0.0/12".to_owned())),
                ..v1::Rule::default()
            };
            let parent = "organizations/default".to_owned();
            let create = v1::CreateRuleRequest { parent, rule: Some(rule), ..v1::CreateRuleRequest::default() };
            FirewallServiceClient::new(channel).create_rule(create).await.unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Portal-like: users at their addresses, previews three times as often as shells, one in sixteen denied.
fn request(number: u32) -> CheckRequest {
    let user = number.wrapping_mul(2_654_435_761) % 4_000;
    let connection_type =
        if number.is_multiple_of(4) { v1::ConnectionType::Shell } else { v1::ConnectionType::Preview };
    CheckRequest {
        ip: format!("10.{}.{}.{}", (number % 16) * 16, user / 250, 1 + user % 250),
        connection_type: connection_type.into(),
        endpoint: format!(
            "organizations/default/projects/team-{}/workspaces/ws-{}/endpoints/main",
            user % 20,
            user % 25
        ),
        user_email: format!("firstname.lastname-{user}@example.com"),
        ..CheckRequest::default()
    }
}

/// What one server did in one round.
struct Round {
    throughput: f64,
    /// Microseconds at p50, p90, p99, p99.9.
    latency: [u32; 4],
    /// Microseconds of processor time in the server for each request.
    processor: f64,
}

async fn round(server: &Server, channels: &[Channel], in_flight: usize) -> Round {
    let stop = Arc::new(AtomicBool::new(false));
    let (begun, processor) = (Instant::now(), server.processor());
    let workers = channels.iter().flat_map(|channel| (0..in_flight).map(move |_| channel)).zip(0_u32..);
    let workers = workers.map(|(channel, worker)| {
        let (mut client, stop) = (DecisionServiceClient::new(channel.clone()), Arc::clone(&stop));
        tokio::spawn(async move {
            let (mut times, mut number) = (Vec::new(), worker.wrapping_mul(7_919));
            while !stop.load(Ordering::Relaxed) {
                let asked = request(number);
                number = number.wrapping_add(1);
                let begun = Instant::now();
                client.check(asked).await.unwrap();
                times.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            times
        })
    });
    let workers: Vec<_> = workers.collect();
    tokio::time::sleep(ROUND).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for worker in workers {
        times.extend(worker.await.unwrap());
    }
    let (elapsed, processor) = (begun.elapsed(), server.processor().saturating_sub(processor));
    times.sort_unstable();
    let at =
        |per_mille: usize| times.get(times.len() * per_mille / 1_000).or(times.last()).copied().unwrap_or_default();
    Round {
        throughput: times.len() as f64 / elapsed.as_secs_f64(),
        latency: [at(500), at(900), at(990), at(999)],
        processor: processor.as_secs_f64() * 1e6 / times.len() as f64,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The median of ratios, the least and the greatest.
fn ratio(of: &[f64], to: &[f64]) -> String {
    let mut ratios: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |place: usize| ratios.get(place).copied().unwrap_or_default();
    format!("{:.2} ({:.2}–{:.2})", at(ratios.len() / 2), at(0), at(ratios.len().saturating_sub(1)))
}

async fn measure() {
    let servers = ROLES.map(Server::start);
    for server in &servers {
        server.prepare().await;
    }
    println!("client and servers share {} cores", std::thread::available_parallelism().unwrap());
    println!(
        "server   conns in-flight  checks/s  p50 µs  p90 µs  p99 µs  p99.9 µs  cpu µs  ÷ nothing: throughput, cpu, p50, p99"
    );
    for connections in CONNECTIONS {
        for in_flight in IN_FLIGHT {
            let mut channels = Vec::new();
            for server in &servers {
                channels.push(server.connect(connections).await);
            }
            let mut rounds: Vec<Vec<Round>> = servers.iter().map(|_| Vec::new()).collect();
            for _ in 0..ROUNDS {
                for ((server, channels), rounds) in servers.iter().zip(&channels).zip(&mut rounds) {
                    rounds.push(round(server, channels, in_flight).await);
                }
            }
            let values = |rounds: &[Round], of: &dyn Fn(&Round) -> f64| rounds.iter().map(of).collect::<Vec<f64>>();
            let (throughput, processor) = (|round: &Round| round.throughput, |round: &Round| round.processor);
            let p = |at: usize| move |round: &Round| f64::from(*round.latency.get(at).unwrap());
            let nothing = rounds.first().unwrap();
            for (server, rounds) in servers.iter().zip(&rounds) {
                let latency: Vec<String> =
                    (0..4).map(|at| format!("{:>7.0}", median(values(rounds, &p(at))))).collect();
                let ratios = [
                    ratio(&values(rounds, &throughput), &values(nothing, &throughput)),
                    ratio(&values(rounds, &processor), &values(nothing, &processor)),
                    ratio(&values(rounds, &p(0)), &values(nothing, &p(0))),
                    ratio(&values(rounds, &p(2)), &values(nothing, &p(2))),
                ];
                println!(
                    "{:<8} {connections:>5} {in_flight:>9} {:>9.0} {} {:>7.1}  {}",
                    server.role,
                    median(values(rounds, &throughput)),
                    latency.join(" "),
                    median(values(rounds, &processor)),
                    ratios.join(", ")
                );
            }
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match std::env::var(ROLE) {
        Ok(role) => runtime.block_on(serve(&role)),
        Err(_) => runtime.block_on(measure()),
    }
}
