//! The calls of PEPs and administrators in the campaign over faults: each is made, and its answer held against the model.
//!
//! Invariant: an error is accepted only while something is wrong that explains it; without an answer nothing is taken for
//! granted.
//! Not here: what goes wrong, and when (`faults_engine`).

use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use portcullis::audit::record::Actor;
use portcullis::audit::session::SessionId;
use portcullis::engine::Engine;
use portcullis::engine::audit::EraseRequest;
use portcullis::engine::change::{ChangeError, ChangeRequest, Changed};
use portcullis::engine::question::{Answer, CheckError, Question};
use portcullis::engine::sessions::Renewed;
use portcullis::policy::decision::Decision;
use portcullis::policy::name::NodePath;
use portcullis::policy::rule::ConnectionType;
use tokio::time::timeout;

use crate::faults_actions::{ADDRESSES, Asked, Edit, NODES, ORGANIZATIONS, id};
use crate::faults_engine::{Campaign, LIMIT};
use crate::faults_invariants as invariants;
use crate::faults_model::{Erased, Known, Maybe, State};
use crate::store_disk::Trouble;

/// How long a schedule waits for what may wait for a disk.
const SHORT: Duration = Duration::from_millis(200);

impl Campaign {
    /// How long to wait for an answer that may wait for a disk; none came: nobody knows.
    async fn answered<T>(&self, what: &str, answer: impl Future<Output = T>) -> Option<T> {
        let waits = self.may_refuse();
        let answer = timeout(if waits { SHORT } else { LIMIT }, answer).await.ok();
        assert!(answer.is_some() || self.may_refuse(), "{what} was never answered");
        answer
    }

    pub(crate) async fn change(&mut self, organization: usize, edit: &Edit) {
        // What comes late would come before it.
        if self.model.maybe.iter().any(|maybe| maybe.late) {
            return;
        }
        let (engine, name) = (self.engine(), ORGANIZATIONS[organization]);
        let target = edit.target(name, self.now());
        let request = ChangeRequest { actor: "admin@example.com".into(), ..ChangeRequest::new(target) };
        let judged = ChangeRequest { validate_only: true, ..request.clone() };
        let Some(judged) = self.answered("a change to be judged", engine.change(judged)).await else { return };
        let expected = match judged {
            Ok(Changed { outcome, .. }) => self.model.with(&outcome, edit, self.now()),
            Err(ChangeError::Refused(_) | ChangeError::Gated(_)) => return,
            Err(error) => {
                assert!(self.may_refuse(), "{error}");
                return;
            }
        };
        match self.answered("a change", engine.change(request)).await {
            Some(Ok(changed)) => {
                let (made, now) = (self.model.with(&changed.outcome, edit, self.now()), self.now());
                let same = self.model.explains(&expected.policy, &made.policy, now);
                assert!(same, "judged as\n{:#?}\nand made as\n{:#?}", expected.policy, made.policy);
                self.model.adopt(made, now);
            }
            // Nothing of it was written.
            Some(Err(ChangeError::NotRecordable(error))) => assert!(self.may_refuse(), "{error}"),
            Some(Err(error)) => {
                assert!(self.may_refuse(), "{error}");
                self.model.maybe.push(expected);
            }
            None => self.model.maybe.push(Maybe { late: true, ..expected }),
        }
    }

    /// The revisions that were acknowledged: what a Check that begins now may ask for.
    fn least(&self) -> [u64; 3] {
        let policy = &self.model.policy;
        let of = |id: &str| policy.organizations.get(id).map_or(0, |organization| organization.revision);
        [of(ORGANIZATIONS[0]), of(ORGANIZATIONS[1]), policy.cluster_revision].map(|of| u64::try_from(of).unwrap())
    }

    /// §2.5: a Check that asks for a revision which nobody has made yet gets no answer from an older one.
    pub(crate) async fn ask_for_more(&self, asked: &Asked) {
        let least = self.least().map(|of| of + 1);
        let answer = timeout(LIMIT, ask(self.engine(), asked.clone(), self.model.email(asked.user), least)).await;
        match answer.expect("a check is never answered") {
            Err(CheckError::RevisionNotReached { .. } | CheckError::ClusterRevisionNotReached { .. }) => {}
            Err(error) => assert!(self.may_refuse(), "revisions {least:?} are asked for: {error}"),
            Ok(answer) => panic!("revisions {least:?} are asked for: {answer:?}"),
        }
    }

    pub(crate) async fn check(&mut self, asked: &[Asked]) {
        let mut unrecordable = self.unrecordable;
        let least = self.least();
        let answers: Vec<_> = asked
            .iter()
            .map(|asked| (asked.clone(), self.model.email(asked.user)))
            .map(|(asked, email)| tokio::spawn(ask(self.engine(), asked, email, least)))
            .collect();
        for (asked, answer) in asked.iter().zip(answers) {
            let answer = timeout(LIMIT, answer).await.expect("a check is never answered").unwrap();
            let email = self.model.email(asked.user);
            // Those that were asked at the same time did not know yet.
            unrecordable |= self.acknowledge(asked, email, answer);
        }
        self.unrecordable = unrecordable;
    }

    /// Holds an answer against the model. True if it shows that nothing can be recorded any more.
    fn acknowledge(&mut self, asked: &Asked, email: String, answer: Result<Answer, CheckError>) -> bool {
        let (now, even, is_sync) = (self.now(), self.even(), self.is_sync(asked.connection_type));
        let answer = match answer {
            Ok(answer) => answer,
            Err(error @ (CheckError::RevisionNotReached { .. } | CheckError::ClusterRevisionNotReached { .. })) => {
                panic!("{asked:?}: what was acknowledged does not answer: {error}");
            }
            Err(error) => {
                assert!(self.may_refuse(), "{asked:?}: {error}");
                let fails_for_good = matches!(self.audit_trouble, Some(Trouble::Always(_)));
                return is_sync && fails_for_good && !self.setup.lets_go;
            }
        };
        assert!(!self.unrecordable, "{asked:?} is answered while nothing can be recorded: {answer:?}");
        let engine = self.engine();
        invariants::a_check_is_decided_by_what_was_acknowledged(&mut self.model, &engine, asked, &answer, now);
        assert!(self.given.insert(answer.decision_id), "decision {} is given out twice", answer.decision_id);
        // Where the log may be left unwritten, an answer leaves after the wait for its record has failed.
        let has_waited = is_sync && answer.sequence > 0 && (!self.setup.lets_go || !self.may_refuse());
        if !self.model.recorded.contains(&answer.decision_id) {
            self.model.answered.insert(answer.decision_id, (answer.sequence, has_waited));
        }
        let Some(session) = answer.session else {
            let is_denied = answer.reason.decision() == Decision::Deny;
            assert!(is_denied || self.setup.lets_go, "{asked:?} is allowed without a session");
            return false;
        };
        let lease = asked.lease.map(|lease| even + Duration::from_secs(lease));
        let known = Known {
            email,
            ip: asked.ip,
            endpoint: asked.endpoint(),
            connection_type: asked.connection_type,
            start: even,
            seen: (even, even),
            lease: lease.map(|lease| (lease, lease)),
            state: State::Active,
            durable: (is_sync && !self.setup.lets_go) || self.model.opened.contains_key(&session),
            may_be_revoked: false,
        };
        match self.model.sessions.entry(session) {
            Entry::Vacant(vacant) => drop(vacant.insert(known)),
            Entry::Occupied(mut occupied) => {
                let folded = occupied.get_mut();
                let same = (&folded.email, folded.ip, &folded.endpoint) == (&known.email, known.ip, &known.endpoint);
                assert!(same && asked.connection_type == ConnectionType::Preview, "{session} is given out twice");
                assert!(matches!(folded.state, State::Active | State::Ending), "{folded:?} goes on");
                folded.seen.1 = even;
                if is_sync && !self.setup.lets_go {
                    folded.seen.0 = even;
                }
            }
        }
        false
    }

    fn is_sync(&self, connection_type: ConnectionType) -> bool {
        connection_type == ConnectionType::Shell || self.setup.preview_sync
    }

    pub(crate) async fn traffic(&mut self, count: usize) {
        let engine = self.engine();
        let asked: Vec<Asked> = (0..count).map(traffic).collect();
        for asked in asked.chunks(32) {
            let answers: Vec<_> = asked
                .iter()
                .map(|asked| (asked.clone(), "traffic@example.com".to_owned()))
                .map(|(asked, email)| tokio::spawn(ask(Arc::clone(&engine), asked, email, [0; 3])))
                .collect();
            for (asked, answer) in asked.iter().zip(answers) {
                let answer = timeout(LIMIT, answer).await.expect("a check is never answered").unwrap();
                let refused = answer.is_err();
                self.acknowledge(asked, "traffic@example.com".to_owned(), answer);
                if refused {
                    return;
                }
            }
        }
    }

    /// The `nth` of the sessions that the PEP holds to be open.
    fn nth(&self, nth: usize, connection_type: Option<ConnectionType>) -> Option<SessionId> {
        let open = self.model.sessions.iter().filter(|(_, known)| {
            known.state != State::Ended
                && connection_type.is_none_or(|only| known.connection_type == only && known.lease.is_some())
        });
        let open: Vec<_> = open.map(|(id, _)| *id).collect();
        open.get(nth.checked_rem(open.len())?).copied()
    }

    pub(crate) async fn end(&mut self, nth: usize) {
        let Some(session) = self.nth(nth, None) else { return };
        let engine = self.engine();
        let known = self.model.sessions[&session].clone();
        let organization = id(known.endpoint.split('/').nth(1).unwrap());
        let ended = self.answered("the end of a session", engine.end_session(&organization, session)).await;
        let now = self.even();
        let state = match ended {
            Some(Ok(Some(_))) => State::Ended,
            Some(Ok(None)) => {
                assert!(!known.is_active(now), "{session} is unknown: {known:?}");
                State::Ending
            }
            Some(Err(error)) => {
                assert!(self.may_refuse(), "{error}");
                State::Ending
            }
            None => State::Ending,
        };
        self.model.sessions.get_mut(&session).unwrap().state = state;
    }

    pub(crate) async fn renew(&mut self, nth: usize, lease: u64) {
        let Some(session) = self.nth(nth, Some(ConnectionType::Shell)) else { return };
        let (engine, now, lease) = (self.engine(), self.even(), Duration::from_secs(lease));
        let known = self.model.sessions[&session].clone();
        let organization = id(known.endpoint.split('/').nth(1).unwrap());
        let named = [(organization, Some(session))];
        let renewed = self.answered("a renewal", engine.renew_sessions(&named, lease)).await;
        let renewed = match renewed {
            Some(Ok(renewed)) => Some(renewed[0]),
            Some(Err(error)) => {
                assert!(self.may_refuse(), "{error}");
                None
            }
            None => None,
        };
        let (first, last) = known.lease.unwrap();
        let until = match renewed {
            Some(Renewed::Renewed) => {
                assert!(known.state != State::Revoked && now < known.due().1, "{known:?} is renewed");
                (now + lease, now + lease)
            }
            Some(Renewed::Revoked) => {
                assert!(known.may_be_revoked, "{known:?} is revoked, and was never denied");
                (first, last)
            }
            Some(Renewed::Lost) => {
                assert!(!known.is_active(now), "{known:?} is lost");
                (first, last)
            }
            None => (first.min(now + lease), last.max(now + lease)),
        };
        self.model.sessions.get_mut(&session).unwrap().lease = Some(until);
    }

    pub(crate) async fn erase(&mut self, user: usize, meanwhile: &[Asked]) {
        let (engine, email) = (self.engine(), self.model.email(user));
        let asked_by = Actor { name: "admin@example.com".into() };
        let request = EraseRequest { organization: None, email: email.clone(), including_actor: false, asked_by };
        let erasing = tokio::spawn(async move { engine.erase_user(request).await });
        tokio::task::yield_now().await;
        self.model.perhaps_erased.insert(email.clone());
        self.check(meanwhile).await;
        let erased = self.answered("an erasure", erasing).await.map(Result::unwrap);
        let unused = meanwhile.iter().all(|asked| asked.user != user);
        match erased {
            Some(Ok(portcullis::engine::audit::Erased { sequence, .. })) => {
                self.model.erased.insert(email.clone(), Erased { sequence, unused });
            }
            Some(Err(error)) => assert!(self.may_refuse(), "{error}"),
            None => {}
        }
        for known in self.model.sessions.values_mut().filter(|known| known.email == email) {
            // Nothing shows any more that it would be allowed.
            known.may_be_revoked = true;
        }
        self.model.next_email(user);
    }
}

/// A preview of somebody whom no other action names.
pub(crate) fn traffic(number: usize) -> Asked {
    Asked {
        user: 0,
        ip: ADDRESSES[number % 2],
        organization: 0,
        node: NODES[0],
        connection_type: ConnectionType::Preview,
        lease: None,
    }
}

/// `least` has the oldest revision of each organization that may answer, and then that of the cluster.
async fn ask(engine: Arc<Engine>, asked: Asked, email: String, least: [u64; 3]) -> Result<Answer, CheckError> {
    let endpoint = asked.endpoint();
    let question = Question {
        address: asked.ip.parse().unwrap(),
        connection_type: asked.connection_type,
        target: NodePath::parse(&endpoint).unwrap(),
        user_email: &email,
        session_lease: asked.lease.map(Duration::from_secs),
        request_id: "",
        min_revision: least[asked.organization],
        min_cluster_revision: least[2],
    };
    engine.check(&question).await
}
