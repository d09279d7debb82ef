//! What a change of the policy permits and denies differently, exactly (design.md §3.6).
//!
//! What is permitted at a target is what cluster, firewall and organization all let through and its effective access
//! permits. The three levels above the nodes are compared once for all targets. A node is compared by itself only where
//! its effective access differs.
//!
//! Invariant: an address is newly permitted at a target exactly where the evaluator denies it before and allows it
//! after, at the given moment; newly denied is the reverse.
//! Not here: the past (`engine`, which replays the audit log), words for people.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::name::{Id, Name, NodeKey};
use super::node::Access;
use super::organization::Organization;
use super::ranges::RangeSet;
use super::rule::{ConnectionType, Source};
use super::time::Timestamp;
use super::version::Version;

/// Targets of Checks that one version of a policy always decides alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetClass {
    /// The organization itself.
    Organization,
    /// Every project that is not registered, and everything below it.
    UnregisteredProject,
    /// A node, and everything below it that is not registered.
    Node(NodeKey),
}

/// What differs for one class of targets and one connection type. At least one of the two sets is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What is connected to.
    pub targets: TargetClass,
    /// How it is connected to.
    pub connection_type: ConnectionType,
    /// The addresses that are denied before and permitted after.
    pub newly_permitted: RangeSet,
    /// The addresses that are permitted before and denied after.
    pub newly_denied: RangeSet,
}

/// Two versions of an organization, compared.
pub struct Impact<'a> {
    before: Option<Side<'a>>,
    after: Option<Side<'a>>,
    /// What the levels above the nodes permit and deny differently, for each connection type.
    above_nodes: [Flips; 2],
}

/// Addresses that are decided differently.
#[derive(Clone, Default)]
struct Flips {
    newly_permitted: RangeSet,
    newly_denied: RangeSet,
}

/// One of the two versions, with the sets that follow from it.
struct Side<'a> {
    version: Version<'a>,
    /// What cluster, firewall and organization together let through, for each connection type.
    above_nodes: [RangeSet; 2],
    /// The addresses of allowlists, by their sources: computed once for all nodes with the same list.
    allowlists: RefCell<HashMap<Vec<&'a Source>, Arc<RangeSet>>>,
}

/// What effective access permits by itself, whatever the levels above it let through.
#[derive(Clone, PartialEq)]
enum EffectiveSet {
    Nobody,
    All,
    Set(Arc<RangeSet>),
}

impl EffectiveSet {
    fn intersection(&self, set: &RangeSet) -> RangeSet {
        match self {
            Self::Nobody => RangeSet::default(),
            Self::All => set.clone(),
            Self::Set(own) => set.intersection(own),
        }
    }
}

impl Flips {
    fn new(before: &RangeSet, after: &RangeSet) -> Self {
        Self { newly_permitted: after.difference(before), newly_denied: before.difference(after) }
    }
}

impl TargetClass {
    /// The name of the class. `projects/-` at its end stands for every project that is not registered.
    pub fn name(&self, organization: &Id) -> String {
        match self {
            Self::Organization => Name::organization(organization).to_string(),
            Self::UnregisteredProject => format!("{}/projects/-", Name::organization(organization)),
            Self::Node(key) => Name::node(organization, key).to_string(),
        }
    }

    /// The name of one target of the class, in both versions.
    pub(super) fn example(&self, before: &Organization, after: Option<&Organization>) -> String {
        match self {
            Self::UnregisteredProject => {
                format!("{}/projects/{}", Name::organization(&before.id), unregistered_project(before, after))
            }
            Self::Organization | Self::Node(_) => self.name(&before.id),
        }
    }
}

/// The id of a project that neither version knows.
fn unregistered_project(before: &Organization, after: Option<&Organization>) -> String {
    let known = |id: &str| {
        let knows = |organization: &Organization| organization.nodes.iter().any(|(key, _)| key.project.as_str() == id);
        knows(before) || after.is_some_and(knows)
    };
    // There are more such ids than there can be nodes, so one of them is free.
    (0..=u32::MAX).map(|number| format!("unregistered-{number}")).find(|id| !known(id)).unwrap_or_default()
}

/// The classes of targets that one of two versions tells apart.
pub(super) fn target_classes(one: &Organization, other: Option<&Organization>) -> impl Iterator<Item = TargetClass> {
    let mut keys: BTreeSet<NodeKey> = one.nodes.iter().map(|(key, _)| key.clone()).collect();
    keys.extend(other.into_iter().flat_map(|other| other.nodes.iter()).map(|(key, _)| key.clone()));
    let nodes = keys.into_iter().map(TargetClass::Node);
    [TargetClass::Organization, TargetClass::UnregisteredProject].into_iter().chain(nodes)
}

impl<'a> Side<'a> {
    fn new(version: Version<'a>, now: Timestamp) -> Self {
        let organization = version.organization;
        let permitted = organization
            .access_set(&organization.node.access)
            .intersection(&organization.access_set(&version.cluster.node.access));
        let above_nodes = ConnectionType::ALL
            .map(|connection_type| version.snapshot.firewall().allowed(connection_type, now).intersection(&permitted));
        Self { version, above_nodes, allowlists: RefCell::default() }
    }

    fn effective(&self, targets: &TargetClass) -> EffectiveSet {
        let organization = self.version.organization;
        let project_known = |key: &NodeKey| {
            let project = NodeKey { project: key.project.clone(), workspace: None, endpoint: None };
            organization.nodes.get(&project).is_some()
        };
        match targets {
            TargetClass::UnregisteredProject if organization.node.require_projects => EffectiveSet::Nobody,
            TargetClass::Organization | TargetClass::UnregisteredProject => EffectiveSet::All,
            TargetClass::Node(key) if organization.node.require_projects && !project_known(key) => EffectiveSet::Nobody,
            TargetClass::Node(key) => match organization.effective_access(key) {
                None | Some((_, Access::AllowAll | Access::Inherit)) => EffectiveSet::All,
                Some((_, access @ Access::AllowList(entries))) => {
                    let sources: Vec<&Source> = entries.iter().map(|entry| &entry.source).collect();
                    let mut allowlists = self.allowlists.borrow_mut();
                    let set = allowlists.entry(sources).or_insert_with(|| Arc::new(organization.access_set(access)));
                    EffectiveSet::Set(Arc::clone(set))
                }
            },
        }
    }

    fn permitted(&self, targets: &TargetClass, connection_type: ConnectionType) -> RangeSet {
        self.effective(targets).intersection(of_type(&self.above_nodes, connection_type))
    }
}

/// The addresses that one version permits at the targets of a class, at `now`.
pub fn permitted(
    version: Version<'_>,
    targets: &TargetClass,
    connection_type: ConnectionType,
    now: Timestamp,
) -> RangeSet {
    Side::new(version, now).permitted(targets, connection_type)
}

fn of_type<T>(both: &[T; 2], connection_type: ConnectionType) -> &T {
    let [shell, preview] = both;
    match connection_type {
        ConnectionType::Shell => shell,
        ConnectionType::Preview => preview,
    }
}

impl<'a> Impact<'a> {
    /// Compares two versions at `now`. None stands for an organization that does not exist.
    pub fn new(before: Option<Version<'a>>, after: Option<Version<'a>>, now: Timestamp) -> Self {
        let (before, after) =
            (before.map(|version| Side::new(version, now)), after.map(|version| Side::new(version, now)));
        let above_nodes = ConnectionType::ALL.map(|connection_type| {
            let of = |side: &Option<Side<'_>>| {
                side.as_ref().map(|side| of_type(&side.above_nodes, connection_type).clone()).unwrap_or_default()
            };
            Flips::new(&of(&before), &of(&after))
        });
        Self { before, after, above_nodes }
    }

    /// The classes of targets that one of the versions tells apart.
    fn target_classes(&self) -> impl Iterator<Item = TargetClass> + use<'a> {
        let of = |side: &Option<Side<'a>>| side.as_ref().map(|side| side.version.organization);
        let (before, after) = (of(&self.before), of(&self.after));
        before.or(after).map(|one| target_classes(one, after)).into_iter().flatten()
    }

    /// The effective access of the class before and after.
    fn effective(&self, targets: &TargetClass) -> [EffectiveSet; 2] {
        [&self.before, &self.after]
            .map(|side| side.as_ref().map_or(EffectiveSet::Nobody, |side| side.effective(targets)))
    }

    /// The addresses that are permitted at the targets of a class, before and after.
    pub(super) fn permitted(&self, targets: &TargetClass, connection_type: ConnectionType) -> [RangeSet; 2] {
        [&self.before, &self.after]
            .map(|side| side.as_ref().map(|side| side.permitted(targets, connection_type)).unwrap_or_default())
    }

    /// Whether the levels above the nodes let every address of a family through after the change.
    pub(super) fn lets_a_family_through(&self) -> bool {
        let full = RangeSet::full();
        self.after
            .iter()
            .flat_map(|side| &side.above_nodes)
            .any(|through| full.v4.is_subset(&through.v4) || full.v6.is_subset(&through.v6))
    }

    fn flips(&self, targets: &TargetClass, connection_type: ConnectionType) -> Flips {
        let [before, after] = self.effective(targets);
        if before == after {
            let Flips { newly_permitted, newly_denied } = of_type(&self.above_nodes, connection_type);
            return Flips {
                newly_permitted: before.intersection(newly_permitted),
                newly_denied: before.intersection(newly_denied),
            };
        }
        let [before, after] = self.permitted(targets, connection_type);
        Flips::new(&before, &after)
    }

    /// What differs, class by class.
    pub fn differences(&self) -> impl Iterator<Item = Difference> + '_ {
        let of_class = move |targets: TargetClass| {
            ConnectionType::ALL.into_iter().filter_map(move |connection_type| {
                let Flips { newly_permitted, newly_denied } = self.flips(&targets, connection_type);
                let differs = !newly_permitted.is_empty() || !newly_denied.is_empty();
                let targets = targets.clone();
                differs.then_some(Difference { targets, connection_type, newly_permitted, newly_denied })
            })
        };
        self.target_classes().flat_map(of_class)
    }

    /// A superset of the addresses for which anything differs anywhere: cheap to compute, and enough to choose the past
    /// Checks that are worth deciding again.
    pub fn concerned(&self) -> RangeSet {
        let mut concerned = RangeSet::default();
        let mut add = |flips: &Flips| {
            concerned = concerned.union(&flips.newly_permitted).union(&flips.newly_denied);
        };
        self.above_nodes.iter().for_each(&mut add);
        for targets in self.target_classes() {
            let [before, after] = self.effective(&targets);
            if before != after {
                for connection_type in ConnectionType::ALL {
                    add(&self.flips(&targets, connection_type));
                }
            }
        }
        concerned
    }
}
