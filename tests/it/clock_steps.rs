//! The steps of the clock campaign: what happens to clocks, stores and the service.
//!
//! Invariant: after a step the model knows what has truly passed, and which corrections may have come.
//! Not here: which schedules are run (`clock_campaign`), what must hold after a step (`clock_truth`).

use std::sync::Arc;
use std::time::Duration;

use portcullis::engine::Engine;
use portcullis::policy::rule::ConnectionType;
use portcullis::policy::time::Timestamp;
use tokio::task::JoinHandle;

use crate::audit_engine::{DEFAULT, check, settle};
use crate::clock::until;
use crate::clock_campaign::{JUMPS, Run, options};
use crate::clock_model::{LASTING, SECOND, SMALL, Span, Watched};
use crate::clock_truth::{Ruled, micros};
use crate::faults_disk::Store;
use crate::store_disk::{Fault, Survival, Trouble};

/// How the service ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Regular,
    Killed,
    PowerCut(Survival),
}

impl Run {
    pub(crate) async fn step(&mut self) {
        let seconds = self.random.one_of(&[8_u64, 40, 200, 4_000]);
        match self.random.below(24) {
            0..3 => {
                let by = self.random.large();
                self.jump(by);
            }
            3 => self.jump_a_little(),
            4..7 => {
                let by = self.random.one_of(&[1_u64, 12, 61, 130, 4_100]);
                self.advance(by);
            }
            7 => self.start_again(End::Regular, false),
            8 => self.start_again(End::Killed, false),
            9..11 => {
                let end = self.any_end();
                self.start_again(end, true);
            }
            11 => self.load(None).await,
            12..14 => {
                let jump = (self.random.large(), self.random.flip());
                self.load(Some(jump)).await;
            }
            14 => self.turn_journal().await,
            15..18 => self.wrong_boot().await,
            18 => self.interrupted_correction().await,
            19 => self.unrecordable_correction().await,
            20..22 => self.rule(seconds).await,
            22 if self.model.waiting.is_none() && !self.journal_fails => {
                self.says(format!("waits {seconds} s"));
                let ip = format!("198.51.100.{}", self.number);
                let within = Some(Duration::from_secs(seconds));
                self.deny(&format!("w{}", self.number), &ip, None, within).await.unwrap();
                self.model.waiting = Some((ip, Span::new(self.model.times.even + micros(seconds))));
            }
            _ => {
                self.says(format!("lease {seconds} s"));
                let (_, session) = self.ask("203.0.113.7", Some(Duration::from_secs(seconds))).await;
                self.model.sessions.push((session.unwrap(), Span::new(self.model.times.even + micros(seconds))));
            }
        }
    }

    fn jump(&mut self, by: i64) {
        self.says(format!("jump {by}"));
        self.reached.jumps += 1;
        self.hand.jump(by);
        self.model.times.jump(by);
    }

    fn jump_a_little(&mut self) {
        let most = SMALL / SECOND;
        let by = if self.small >= most || (self.small > -most && self.random.flip()) { -1 } else { 1 };
        self.says(format!("jump {by}"));
        self.small += by;
        self.hand.jump(by);
    }

    fn advance(&mut self, seconds: u64) {
        self.says(format!("advance {seconds}"));
        self.hand.advance(Duration::from_secs(seconds));
        self.model.times.advance(Duration::from_secs(seconds));
    }

    async fn pass_lasting(&mut self) {
        for _ in 0..2 {
            self.advance(31);
            self.look().await;
        }
    }

    async fn rule(&mut self, seconds: u64) {
        if self.model.waiting.is_some() || self.journal_fails {
            return;
        }
        self.says(format!("rule for {seconds} s"));
        let (id, ip) = (format!("r{}", self.number), format!("192.0.2.{}", self.number));
        let end = self.model.times.now() + micros(seconds);
        self.deny(&id, &ip, Some(Timestamp::from_micros(end)), None).await.unwrap();
        self.model.rules.push(Ruled::new(id, ip, end));
    }

    fn any_end(&mut self) -> End {
        match self.random.below(3) {
            0 => End::Regular,
            1 => End::Killed,
            _ => End::PowerCut(self.random.one_of(&Survival::ALL)),
        }
    }

    /// The service ends, perhaps with the machine, and starts again.
    fn start_again(&mut self, end: End, is_booted: bool) {
        self.says(format!("{}{end:?}", if is_booted { "boot after " } else { "" }));
        let ended = self.engine.take().unwrap();
        match end {
            End::Regular => {
                ended.close();
                drop(ended);
                self.surroundings.heal();
            }
            End::Killed | End::PowerCut(_) => {
                // The power goes with the machine only.
                let survival = if let End::PowerCut(survival) = end { Some(survival) } else { None };
                self.kept.die(|| self.surroundings.crash(survival, false));
                drop(ended);
            }
        }
        self.journal_fails = false;
        if is_booted {
            self.hand.boot();
        }
        self.start(!is_booted && self.kept.is_there());
    }

    fn start(&mut self, goes_on: bool) {
        self.watched = Watched::new(&self.hand);
        let clock = self.kept.clock(self.watched.clone());
        let opened = Engine::open(self.surroundings.stores().unwrap(), options(), clock);
        let engine = opened.unwrap_or_else(|error| panic!("{}: {error}", self.context()));
        self.engine = Some(Arc::new(engine));
        self.started(goes_on);
    }

    /// Several clients at once; the wall clock jumps meanwhile, and perhaps back.
    async fn load(&mut self, jump: Option<(i64, bool)>) {
        self.says("load");
        let clients: Vec<JoinHandle<()>> = (0..4)
            .map(|client| {
                let engine = Arc::clone(self.engine.as_ref().unwrap());
                tokio::spawn(async move {
                    for number in 0..150 {
                        let ip = format!("203.0.113.{}", 100 + number % 7 + client);
                        check(&engine, "bob@example.com", &ip, ConnectionType::Preview, DEFAULT).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        if let Some((by, is_passing)) = jump {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            self.jump(by);
            if is_passing {
                self.watched.looked().await;
                self.model.times.looked();
                self.jump(-by);
            }
        }
        for client in clients {
            client.await.unwrap();
        }
        settle(self.engine()).await;
    }

    /// The policy journal fails from now on, or works again.
    async fn turn_journal(&mut self) {
        self.says("journal");
        if self.journal_fails {
            self.mend().await;
        } else {
            self.surroundings.trouble(Store::Policy, Trouble::Always(Fault::Error));
            self.journal_fails = true;
        }
    }

    async fn mend(&mut self) {
        self.surroundings.heal();
        self.journal_fails = false;
        let mut writable = self.engine().writable();
        let mends = tokio::time::timeout(crate::clock::PATIENCE, writable.wait_for(|writable| *writable)).await;
        assert!(mends.is_ok(), "{}: it does not recover", self.context());
    }

    /// The machine is booted with a wall clock that is ahead; it is put right before anybody may believe it, perhaps after
    /// another start.
    async fn wrong_boot(&mut self) {
        if !self.journal_fails {
            let seconds = self.random.one_of(&[200, 4_000]);
            self.rule(seconds).await;
        }
        let by = self.random.one_of(&JUMPS);
        self.jump(by);
        let end = self.any_end();
        self.start_again(end, true);
        self.look().await;
        let seconds = self.random.one_of(&[1, 13, 45]);
        self.advance(seconds);
        self.look().await;
        let (is_again, is_first, is_booted) = (self.random.flip(), self.random.flip(), self.random.flip());
        if is_first {
            self.jump(-by);
        }
        if is_again {
            let end = if is_booted { self.any_end() } else { self.random.one_of(&[End::Regular, End::Killed]) };
            self.start_again(end, is_booted);
            self.look().await;
        }
        if !is_first {
            self.jump(-by);
            self.look().await;
        }
        self.pass_lasting().await;
    }

    /// A correction comes due, and the service dies at that moment.
    async fn interrupted_correction(&mut self) {
        if !self.model.times.is_settled() {
            return;
        }
        let by = self.random.large();
        self.jump(by);
        self.look().await;
        self.advance(u64::try_from(LASTING / SECOND).unwrap() + 1);
        // About as long as the service takes to look.
        tokio::time::sleep(Duration::from_millis(self.random.below(220))).await;
        self.model.times.looked();
        self.hold();
        self.reached.interrupted += 1;
        let end = if self.random.flip() { End::Regular } else { End::Killed };
        self.start_again(end, false);
    }

    /// A correction comes due while the audit log fails, perhaps unknown to the service; then it is mended, or a start comes.
    async fn unrecordable_correction(&mut self) {
        if !self.model.times.is_settled() || self.journal_fails {
            return;
        }
        let by = self.random.large();
        self.jump(by);
        self.look().await;
        self.says("the audit log fails");
        self.surroundings.trouble(Store::Audit, Trouble::Always(Fault::Error));
        if self.random.flip() {
            let fails = async || self.try_to_ask("203.0.113.8", None).await.err();
            until("the service knows that the audit log fails", fails).await;
        }
        self.advance(u64::try_from(LASTING / SECOND).unwrap() + 1);
        self.watched.looked().await;
        self.model.times.looked();
        self.hold();
        self.reached.interrupted += 1;
        match self.random.below(3) {
            0 => {
                self.says("mended");
                self.mend().await;
            }
            1 => self.start_again(End::Regular, false),
            _ => self.start_again(End::Killed, false),
        }
    }
}
