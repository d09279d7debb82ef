//! Changes of policy that meet checks being registered, in schedules that are forced.
//!
//! The hazard: a check decides by the old policy, the change is published and sessions are judged again, and only then
//! the check's session is registered: nobody would ever revoke it.
//!
//! Invariant: threads stop at named points until they are told to go on; no test passes or fails by luck. Waiting for
//! something not to happen can only miss a fault, never invent one.
//! Not here: what the table does without races (`sessions_table`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use portcullis::audit::session::SessionId;
use portcullis::engine::sessions::{AdmissionKey, JudgedSession, SHARDS, Scope, Session, SessionOptions, SessionTable};
use portcullis::policy::address::Address;
use portcullis::policy::name::Id;
use portcullis::policy::rule::ConnectionType;

use crate::sessions_table::{all, at, id, node, revocation};

/// How long something is watched that must not happen.
const WATCH: Duration = Duration::from_millis(50);

/// What the log would hold.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Logged {
    Opened(SessionId),
    Denied,
    Revoked(SessionId),
}

/// A table, a policy that denies everything or nothing, and a log.
struct World {
    table: SessionTable,
    denies: AtomicBool,
    log: Mutex<Vec<Logged>>,
}

impl World {
    fn new() -> Self {
        let table = SessionTable::new(1, &SessionOptions::default());
        Self { table, denies: AtomicBool::new(false), log: Mutex::new(Vec::new()) }
    }

    fn push(&self, logged: Logged) {
        self.log.lock().unwrap().push(logged);
    }

    fn log(&self) -> Vec<Logged> {
        self.log.lock().unwrap().clone()
    }

    /// Checks a connection of the user whose address it is. `point` is called at: `decide`, `lock`, `decide again`,
    /// `open`, `unlock`.
    fn check(&self, user: u32, redecides: bool, point: &dyn Fn(&'static str)) {
        let (organization, endpoint, email) = (id("acme"), node(0, 0), "ann@example.com");
        let key = AdmissionKey {
            organization: &organization,
            endpoint: &endpoint,
            connection_type: ConnectionType::Shell,
            email,
            address: Address::V4(user),
        };
        point("decide");
        let mut denied = self.denies.load(SeqCst);
        if denied {
            return self.push(Logged::Denied);
        }
        point("lock");
        self.table.admit(
            &key,
            |_| (),
            |admission| {
                point("decide again");
                if redecides {
                    denied = self.denies.load(SeqCst);
                }
                if denied {
                    return self.push(Logged::Denied);
                }
                point("open");
                let admitted = admission.allow(at(0), None, 1, None).unwrap();
                self.push(Logged::Opened(admitted.session));
                point("unlock");
            },
        );
    }

    fn judge_all(&self, before_shard: impl FnMut()) {
        let judge = |_| {
            let denies = self.denies.load(SeqCst);
            move |_: &JudgedSession<'_>| denies.then(|| revocation(at(1)))
        };
        let revoked = |session: &Session| self.push(Logged::Revoked(session.record.id));
        self.table.revoke(&Scope::All, before_shard, judge, revoked);
    }

    /// Whether a session goes on that the policy would deny.
    fn is_leaky(&self) -> bool {
        self.denies.load(SeqCst) && all(&self.table).iter().any(|session| session.record.revocation.is_none())
    }

    /// The log tells the opening of a session once and before its revocation.
    fn assert_log_in_order(&self) {
        let log = self.log();
        for (place, logged) in log.iter().enumerate() {
            if let Logged::Revoked(session) = logged {
                assert!(log[..place].contains(&Logged::Opened(*session)), "{log:?}");
            }
        }
    }

    /// The shard in which the user's session will be.
    fn shard_of(&self, user: u32) -> usize {
        self.check(user, true, &|_| ());
        let session = all(&self.table).remove(0);
        let end = portcullis::audit::session::EndReason::Closed;
        self.table.end(session.record.id, &Id::parse("acme").unwrap(), at(0), end, |_| ()).unwrap();
        self.log.lock().unwrap().clear();
        usize::try_from(session.record.id.number % SHARDS as u64).unwrap()
    }
}

/// A thread's points: it says where it is, and waits.
struct Points {
    arrived: Sender<&'static str>,
    go: Receiver<()>,
}

/// The other end of `Points`.
struct Reins {
    arrived: Receiver<&'static str>,
    go: Sender<()>,
}

/// Where a thread is that is through.
const GONE: &str = "gone";

fn reins() -> (Points, Reins) {
    let (arrived_sender, arrived) = channel();
    let (go, go_receiver) = channel();
    (Points { arrived: arrived_sender, go: go_receiver }, Reins { arrived, go })
}

impl Points {
    fn stop(&self, point: &'static str) {
        self.arrived.send(point).unwrap();
        self.go.recv().unwrap();
    }
}

#[test]
fn a_change_between_deciding_and_locking_is_seen_under_the_lock() {
    let world = World::new();
    let (points, reins) = reins();
    thread::scope(|scope| {
        let check = scope.spawn(|| {
            world.check(1, true, &move |point| {
                if point == "lock" {
                    points.stop(point);
                }
            });
        });
        reins.arrived.recv().unwrap();
        world.denies.store(true, SeqCst);
        world.judge_all(|| ());
        assert_eq!(world.log(), [], "the session that was judged is not registered yet");
        reins.go.send(()).unwrap();
        check.join().unwrap();
    });
    assert_eq!(world.log(), [Logged::Denied]);
    assert!(world.table.is_empty());
}

#[test]
fn judging_waits_for_a_check_that_has_decided_again_and_then_revokes_its_session() {
    let world = World::new();
    let shard = world.shard_of(1);
    let (points, reins) = reins();
    thread::scope(|scope| {
        let check = scope.spawn(|| {
            world.check(1, true, &move |point| {
                if point == "open" {
                    points.stop(point);
                }
            });
        });
        reins.arrived.recv().unwrap();
        world.denies.store(true, SeqCst);
        let (passed_sender, passed) = channel();
        let (world, done_sender) = (&world, passed_sender.clone());
        let mut shards = 0;
        let judging = scope.spawn(move || {
            world.judge_all(|| {
                passed_sender.send(shards).unwrap();
                shards += 1;
            });
            done_sender.send(SHARDS).unwrap();
        });
        while passed.recv().unwrap() != shard {}
        assert!(passed.recv_timeout(WATCH).is_err(), "judging went past a shard that is locked");
        assert_eq!(world.log(), []);
        reins.go.send(()).unwrap();
        check.join().unwrap();
        judging.join().unwrap();
        let session = all(&world.table).remove(0).record;
        assert_eq!(world.log(), [Logged::Opened(session.id), Logged::Revoked(session.id)]);
        assert_eq!(session.revocation, Some(revocation(at(1))));
    });
}

/// All orders in which the steps of several threads can come, as the threads' numbers.
fn orders(steps: &[usize]) -> Vec<Vec<usize>> {
    if steps.iter().all(|left| *left == 0) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for thread in (0..steps.len()).filter(|thread| steps[*thread] > 0) {
        let mut rest = steps.to_vec();
        rest[thread] -= 1;
        all.extend(orders(&rest).into_iter().map(|order| [vec![thread], order].concat()));
    }
    all
}

/// What the publisher does, in which order.
#[derive(Clone, Copy, PartialEq)]
enum Publisher {
    PublishesThenJudges,
    JudgesThenPublishes,
}

/// Lets one publisher and checks go through their steps in every order; returns the orders and how many of them left a
/// session that the policy denies. A thread that is let go on while another holds its shard blocks until that one is
/// through, as it would on its own.
fn leaks(checks: &[&[&str]], redecides: bool, publisher: Publisher) -> (usize, usize) {
    let mut steps = vec![2];
    steps.extend(checks.iter().map(|points| points.len()));
    let orders = orders(&steps);
    let mut leaks = 0;
    for order in &orders {
        let world = World::new();
        let world = &world;
        let users = 0..u32::try_from(checks.len()).unwrap();
        thread::scope(|scope| {
            let (points, publishing) = reins();
            let mut threads = vec![publishing];
            scope.spawn(move || {
                let publish = || {
                    points.stop("publish");
                    world.denies.store(true, SeqCst);
                };
                let judge = || {
                    points.stop("judge");
                    world.judge_all(|| ());
                };
                match publisher {
                    Publisher::PublishesThenJudges => (publish(), judge()),
                    Publisher::JudgesThenPublishes => (judge(), publish()),
                };
                points.arrived.send(GONE).unwrap();
            });
            for (user, stops) in users.zip(checks) {
                let (points, reins) = reins();
                threads.push(reins);
                scope.spawn(move || {
                    let point = |point| {
                        if stops.contains(&point) {
                            points.stop(point);
                        }
                    };
                    world.check(user, redecides, &point);
                    points.arrived.send(GONE).unwrap();
                });
            }
            drive(&threads, order);
        });
        world.assert_log_in_order();
        leaks += usize::from(world.is_leaky());
    }
    (orders.len(), leaks)
}

/// Lets the threads go on in this order, each step to its end before the next begins. Only judging while a check holds
/// its shard has its end later. A check that was denied is gone before its turns are over.
fn drive(threads: &[Reins], order: &[usize]) {
    let mut points: Vec<_> = threads.iter().map(|thread| thread.arrived.recv().unwrap()).collect();
    let is_held = |points: &[&str]| points.iter().any(|point| ["decide again", "open", "unlock"].contains(point));
    // Turns that were given to the publisher and not ended.
    let mut waiting = 0;
    for thread in order.iter().copied() {
        if points[thread] == GONE {
            continue;
        }
        threads[thread].go.send(()).unwrap();
        if thread == 0 && (waiting > 0 || points[0] == "judge" && is_held(&points)) {
            waiting += 1;
            continue;
        }
        points[thread] = threads[thread].arrived.recv().unwrap();
        if !is_held(&points) {
            for _ in 0..std::mem::take(&mut waiting) {
                points[0] = threads[0].arrived.recv().unwrap();
            }
        }
    }
    assert!(points.iter().all(|point| *point == GONE));
}

#[test]
fn no_order_of_steps_leaves_a_session_that_the_change_denies() {
    let fine = ["decide", "lock", "decide again", "open", "unlock"];
    assert_eq!(leaks(&[&fine], true, Publisher::PublishesThenJudges), (21, 0));
    let coarse = ["decide", "lock"];
    assert_eq!(leaks(&[&coarse, &coarse], true, Publisher::PublishesThenJudges), (90, 0));
}

#[test]
fn the_orders_would_show_a_check_that_does_not_decide_again_and_a_publisher_that_judges_first() {
    let fine = ["decide", "lock", "decide again", "open", "unlock"];
    assert!(leaks(&[&fine], false, Publisher::PublishesThenJudges).1 > 0);
    assert!(leaks(&[&fine], true, Publisher::JudgesThenPublishes).1 > 0);
}
