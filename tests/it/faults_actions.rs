//! What may happen to a service, at random.
//!
//! Invariant: every action can be tried at any time; what it means then is for the campaign to find out.
//! Not here: doing it (`faults_engine`), and what must hold afterwards (`faults_invariants`).

use std::time::Duration;

use portcullis::engine::change::ChangeTarget;
use portcullis::policy::name::{Id, NodeKey, NodePath};
use portcullis::policy::node::{Access, AccessEntry, NodePatch};
use portcullis::policy::plan::Mutation;
use portcullis::policy::ranges::RangeList;
use portcullis::policy::rule::{Action as RuleAction, ConnectionType, ConnectionTypes, RulePatch, Source};
use portcullis::policy::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::faults_disk::Store;
use crate::store_disk::{Fault, Survival, Trouble};

pub(crate) const ORGANIZATIONS: [&str; 2] = ["default", "other"];
pub(crate) const USERS: usize = 3;
pub(crate) const ADDRESSES: [&str; 5] = ["10.0.0.1", "10.0.0.2", "192.0.2.1", "203.0.113.7", "2001:db8::1"];
/// Below an organization; the first is the organization itself.
pub(crate) const NODES: [&str; 4] = ["", "/projects/a", "/projects/a/workspaces/w", "/projects/b"];
const RANGES: [&str; 7] =
    ["10.0.0.0/8", "10.0.0.1", "192.0.2.0/24", "203.0.113.0/24", "any", "2001:db8::/32", "0.0.0.0/0"];
const RULES: [&str; 4] = ["r0", "r1", "r2", "r3"];
/// In seconds: more than a clock follows bit by bit, so that a jump changes nothing before it has lasted.
const JUMPS: [i64; 6] = [-31_536_000, -2_592_000, -3_600, 3_600, 2_592_000, 31_536_000];
const GROUPS: [&str; 2] = ["g0", "g1"];

/// One of them.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// The policy is to change.
    Change { organization: usize, edit: Edit },
    /// Checks, all at once.
    Check(Vec<Asked>),
    /// Many previews of one user.
    Traffic { count: usize },
    /// The PEP closes one of the sessions that it knows.
    End { nth: usize },
    /// The PEP renews one of them.
    Renew { nth: usize, lease: u64 },
    /// A user is erased, while these ask.
    Erase { user: usize, meanwhile: Vec<Asked> },
    /// Time passes, in seconds. Where the wall clock is wrong and stays so, it may be followed.
    Advance { seconds: u64, stays: bool },
    /// The wall clock jumps by so many seconds.
    Jump(i64),
    /// A store begins to fail.
    Trouble { store: Store, trouble: Trouble },
    /// A store no longer answers.
    Stall { store: Store },
    /// Everything works again, and nothing else happens until everything is done.
    Heal,
    /// The service dies, and with a survival the machine as well, which is booted. A mirror that is `lost` is empty afterwards.
    Crash { survival: Option<Survival>, lost: bool },
    /// The same, at the so many-th operation of the disk from now on.
    CutAfter { operations: usize, survival: Option<Survival>, lost: bool },
    /// The service is ended in the regular way, and started.
    Restart,
    /// The same, and a copy is put aside in between.
    Copy,
    /// The copy is put back, and what came after it is lost.
    PutBack,
}

/// A Check.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) user: usize,
    pub(crate) ip: &'static str,
    pub(crate) organization: usize,
    pub(crate) node: &'static str,
    pub(crate) connection_type: ConnectionType,
    pub(crate) lease: Option<u64>,
}

impl Asked {
    pub(crate) fn endpoint(&self) -> String {
        format!("organizations/{}{}", ORGANIZATIONS[self.organization], self.node)
    }
}

/// A change of the policy.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    CreateRule { id: &'static str, rule: Shape, first: bool },
    UpdateRule { id: &'static str, rule: Shape },
    DeleteRule { id: &'static str },
    CreateGroup { id: &'static str, ranges: Vec<&'static str> },
    ReplaceRanges { id: &'static str, ranges: Vec<&'static str> },
    DeleteGroup { id: &'static str },
    CreateNode { node: &'static str, access: List },
    UpdateNode { node: &'static str, access: List },
    DeleteNode { node: &'static str },
    RequireProjects(bool),
    Cluster(List),
    CreateOrganization,
    DeleteOrganization,
}

/// A rule.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    deny: bool,
    source: &'static str,
    connection_type: Option<ConnectionType>,
    disabled: bool,
    /// Seconds from now.
    expires_in: Option<u64>,
}

/// An access; none of the entries: everything is allowed.
#[derive(Clone, Debug)]
pub(crate) struct List(Option<Vec<&'static str>>);

/// A range, or a group of this id.
fn source(text: &str) -> Source {
    if GROUPS.contains(&text) { Source::Group(id(text)) } else { Source::Range(text.parse().unwrap()) }
}

pub(crate) fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn ranges(texts: &[&str]) -> RangeList {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl Shape {
    fn patch(&self, now: Duration) -> RulePatch {
        let types = self.connection_type.map_or_else(ConnectionTypes::default, |only| [only].into_iter().collect());
        let expire = |seconds| Timestamp::new(i64::try_from(now.as_secs() + seconds).unwrap(), 0).unwrap();
        RulePatch {
            action: Some(if self.deny { RuleAction::Deny } else { RuleAction::Allow }),
            source: Some(source(self.source)),
            connection_types: Some(types),
            description: None,
            disabled: Some(self.disabled),
            expire_time: Some(self.expires_in.map(expire)),
            expired: false,
        }
    }
}

impl List {
    fn patch(&self) -> NodePatch {
        let entry = |text: &&str| AccessEntry { source: source(text), description: "".into() };
        let access =
            self.0.as_ref().map_or(Access::AllowAll, |entries| Access::AllowList(entries.iter().map(entry).collect()));
        NodePatch { access: Some(access), ..NodePatch::default() }
    }
}

impl Edit {
    /// The rule, the group and the node that it names; an empty node is the organization itself.
    pub(crate) fn named(&self) -> (Option<&'static str>, Option<&'static str>, Option<&'static str>) {
        match self {
            Self::CreateRule { id, .. } | Self::UpdateRule { id, .. } | Self::DeleteRule { id } => {
                (Some(id), None, None)
            }
            Self::CreateGroup { id, .. } | Self::ReplaceRanges { id, .. } | Self::DeleteGroup { id } => {
                (None, Some(id), None)
            }
            Self::CreateNode { node, .. } | Self::UpdateNode { node, .. } | Self::DeleteNode { node } => {
                (None, None, Some(node))
            }
            Self::RequireProjects(_) => (None, None, Some("")),
            Self::Cluster(_) | Self::CreateOrganization | Self::DeleteOrganization => (None, None, None),
        }
    }

    /// What is asked of the service at this moment.
    pub(crate) fn target(&self, organization: &str, now: Duration) -> ChangeTarget {
        let key = |node: &str| NodeKey::of(&NodePath::parse(&format!("organizations/default{node}")).unwrap());
        let mutation = match self {
            Self::CreateRule { id: rule, rule: shape, first } => {
                Mutation::CreateRule { id: Some(id(rule)), position: first.then_some(1), patch: shape.patch(now) }
            }
            Self::UpdateRule { id: rule, rule: shape } => {
                Mutation::UpdateRule { id: id(rule), etag: None, patch: shape.patch(now) }
            }
            Self::DeleteRule { id: rule } => Mutation::DeleteRule { id: id(rule), etag: None },
            Self::CreateGroup { id: group, ranges: texts } => {
                Mutation::CreateGroup { id: Some(id(group)), description: "".into(), ranges: ranges(texts) }
            }
            Self::ReplaceRanges { id: group, ranges: texts } => {
                Mutation::ReplaceRanges { id: id(group), etag: None, ranges: ranges(texts) }
            }
            Self::DeleteGroup { id: group } => Mutation::DeleteGroup { id: id(group), etag: None },
            Self::CreateNode { node, access } => {
                Mutation::CreateNode { key: key(node).unwrap(), patch: access.patch() }
            }
            Self::UpdateNode { node, access } => {
                Mutation::UpdateNode { key: key(node), etag: None, patch: access.patch() }
            }
            Self::DeleteNode { node } => Mutation::DeleteNode { key: key(node).unwrap(), etag: None, force: true },
            Self::RequireProjects(required) => {
                let patch = NodePatch { require_projects: Some(*required), ..NodePatch::default() };
                Mutation::UpdateNode { key: None, etag: None, patch }
            }
            Self::Cluster(access) => return ChangeTarget::Cluster { etag: None, patch: access.patch() },
            Self::CreateOrganization => {
                return ChangeTarget::CreateOrganization { id: id(organization), patch: NodePatch::default() };
            }
            Self::DeleteOrganization => {
                return ChangeTarget::DeleteOrganization { id: id(organization), etag: None, force: true };
            }
        };
        ChangeTarget::Organization { id: id(organization), mutation }
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let sources = [&RANGES[..], &GROUPS].concat();
    let types = prop_oneof![
        3 => Just(None),
        1 => Just(Some(ConnectionType::Shell)),
        1 => Just(Some(ConnectionType::Preview)),
    ];
    (any::<bool>(), select(sources), types, prop::bool::weighted(0.1), prop::option::of(1..200_u64)).prop_map(
        |(deny, source, connection_type, disabled, expires_in)| Shape {
            deny,
            source,
            connection_type,
            disabled,
            expires_in,
        },
    )
}

fn list() -> impl Strategy<Value = List> {
    prop::option::of(vec(select(&RANGES[..]), 0..3)).prop_map(|entries| {
        List(entries.map(|mut entries| {
            entries.sort_unstable();
            entries.dedup();
            entries
        }))
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    let (rule, group, node) = (select(&RULES[..]), select(&GROUPS[..]), select(&NODES[1..]));
    let ranges = || vec(select(&RANGES[..]), 1..3);
    prop_oneof![
        4 => (rule.clone(), shape(), any::<bool>()).prop_map(|(id, rule, first)| Edit::CreateRule { id, rule, first }),
        2 => (rule.clone(), shape()).prop_map(|(id, rule)| Edit::UpdateRule { id, rule }),
        2 => rule.prop_map(|id| Edit::DeleteRule { id }),
        1 => (group.clone(), ranges()).prop_map(|(id, ranges)| Edit::CreateGroup { id, ranges }),
        1 => (group.clone(), ranges()).prop_map(|(id, ranges)| Edit::ReplaceRanges { id, ranges }),
        1 => group.prop_map(|id| Edit::DeleteGroup { id }),
        2 => (node.clone(), list()).prop_map(|(node, access)| Edit::CreateNode { node, access }),
        1 => (select(&NODES[..]), list()).prop_map(|(node, access)| Edit::UpdateNode { node, access }),
        1 => node.prop_map(|node| Edit::DeleteNode { node }),
        1 => any::<bool>().prop_map(Edit::RequireProjects),
        1 => list().prop_map(Edit::Cluster),
        2 => Just(Edit::CreateOrganization),
        1 => Just(Edit::DeleteOrganization),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let organization = prop_oneof![4 => Just(0_usize), 1 => Just(1)];
    let lease = prop::option::weighted(0.3, 5..100_u64);
    (0..USERS, select(&ADDRESSES[..]), organization, select(&NODES[..]), any::<bool>(), lease).prop_map(
        |(user, ip, organization, node, shell, lease)| {
            let connection_type = if shell { ConnectionType::Shell } else { ConnectionType::Preview };
            Asked { user, ip, organization, node, connection_type, lease: lease.filter(|_| shell) }
        },
    )
}

fn survival() -> impl Strategy<Value = Option<Survival>> {
    prop_oneof![
        2 => Just(None),
        3 => select(&Survival::ALL[..]).prop_map(Some),
        2 => any::<u64>().prop_map(|sectors| Some(Survival::Sectors(sectors))),
    ]
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        2 => select(&Fault::ERRORS[..]).prop_map(Trouble::Always),
        2 => any::<u64>().prop_map(Trouble::Sometimes),
        1 => Just(Trouble::Full),
    ]
}

/// One action.
pub(crate) fn action() -> impl Strategy<Value = Action> {
    let organization = prop_oneof![4 => Just(0_usize), 1 => Just(1)];
    let store = select(&Store::ALL[..]);
    let (nth, lost) = (0..8_usize, prop::bool::weighted(0.3));
    prop_oneof![
        12 => (organization, edit()).prop_map(|(organization, edit)| Action::Change { organization, edit }),
        12 => vec(asked(), 1..6).prop_map(Action::Check),
        2 => (50..400_usize).prop_map(|count| Action::Traffic { count }),
        3 => nth.clone().prop_map(|nth| Action::End { nth }),
        2 => (nth, 5..100_u64).prop_map(|(nth, lease)| Action::Renew { nth, lease }),
        2 => (0..USERS, vec(asked(), 0..4)).prop_map(|(user, meanwhile)| Action::Erase { user, meanwhile }),
        4 => (prop_oneof![3 => 1..90_u64, 2 => Just(61), 1 => Just(700), 1 => Just(4_000)], prop::bool::weighted(0.7))
            .prop_map(|(seconds, stays)| Action::Advance { seconds, stays }),
        4 => select(&JUMPS[..]).prop_map(Action::Jump),
        3 => (store.clone(), trouble()).prop_map(|(store, trouble)| Action::Trouble { store, trouble }),
        1 => store.prop_map(|store| Action::Stall { store }),
        4 => Just(Action::Heal),
        2 => (survival(), lost).prop_map(|(survival, lost)| Action::Crash { survival, lost }),
        3 => (0..60_usize, survival(), lost)
            .prop_map(|(operations, survival, lost)| Action::CutAfter { operations, survival, lost }),
        2 => Just(Action::Restart),
        1 => Just(Action::Copy),
        1 => Just(Action::PutBack),
    ]
}
