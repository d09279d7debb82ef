//! What a change of the policy permits and denies differently, exactly (design.md §3.6).
//!
//! What is permitted at a target is what cluster, firewall and organization all let through and its effective access
//! permits. The three levels above the nodes are compared once for all targets. A node is compared by itself only where
//! its effective access differs.
//!
//! Every moment from now on is compared, because rules expire.
//!
//! Invariant: an address is newly permitted at a target and a moment exactly where the evaluator denies it before and
//! allows it after, at that moment; newly denied is the reverse.
//! Not here: the past (`engine`, which replays the audit log), words for people.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::forecast::TooCostly;
use super::name::{Id, Name, NodeKey};
use super::node::Access;
use super::organization::Organization;
use super::ranges::RangeSet;
use super::rule::{ConnectionType, Source};
use super::time::Timestamp;
use super::timed_set::TimedSet;
use super::timeline::{Moment, Period, Timeline};
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

/// What differs for one class of targets and one connection type, all through a period. At least one of the two sets is
/// not empty. An address is in one set for each period in which it is decided so, and a period is as long as it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What is connected to.
    pub targets: TargetClass,
    /// How it is connected to.
    pub connection_type: ConnectionType,
    /// When it is connected to.
    pub period: Period,
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

/// Addresses that are decided differently, at some moments.
#[derive(Clone, Default)]
struct Flips {
    newly_permitted: TimedSet,
    newly_denied: TimedSet,
}

/// One of the two versions, with the sets that follow from it.
struct Side<'a> {
    version: Version<'a>,
    /// What cluster, firewall and organization together let through, for each connection type.
    above_nodes: [TimedSet; 2],
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
    fn intersection(&self, set: &TimedSet) -> TimedSet {
        match self {
            Self::Nobody => TimedSet::default(),
            Self::All => set.clone(),
            Self::Set(own) => set.within(own),
        }
    }

    /// Whether it permits all addresses of IPv4, and all of IPv6.
    fn whole_families(&self) -> [bool; 2] {
        match self {
            Self::Nobody => [false; 2],
            Self::All => [true; 2],
            Self::Set(own) => {
                let full = RangeSet::full();
                [full.v4.is_subset(&own.v4), full.v6.is_subset(&own.v6)]
            }
        }
    }
}

impl Flips {
    fn new(before: &TimedSet, after: &TimedSet) -> Self {
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
        let permitted = permitted_above(&version);
        let firewall = version.snapshot.firewall();
        let above_nodes = firewall.of_types(|of| firewall.allowed_from(of, now).within(&permitted));
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

    fn permitted(&self, targets: &TargetClass, connection_type: ConnectionType) -> TimedSet {
        self.effective(targets).intersection(of_type(&self.above_nodes, connection_type))
    }
}

/// What cluster and organization together let through.
fn permitted_above(version: &Version<'_>) -> RangeSet {
    let organization = version.organization;
    let own = organization.access_set(&organization.node.access);
    own.intersection(&organization.access_set(&version.cluster.node.access))
}

/// The addresses that one version permits at the targets of a class, at `now`.
pub fn permitted(
    version: Version<'_>,
    targets: &TargetClass,
    connection_type: ConnectionType,
    now: Timestamp,
) -> RangeSet {
    let through = version.snapshot.firewall().allowed(connection_type, now).intersection(&permitted_above(&version));
    let side = Side { version, above_nodes: Default::default(), allowlists: RefCell::default() };
    match side.effective(targets) {
        EffectiveSet::Nobody => RangeSet::default(),
        EffectiveSet::All => through,
        EffectiveSet::Set(own) => through.intersection(&own),
    }
}

fn of_type<T>(both: &[T; 2], connection_type: ConnectionType) -> &T {
    let [shell, preview] = both;
    match connection_type {
        ConnectionType::Shell => shell,
        ConnectionType::Preview => preview,
    }
}

/// When a change opens a class of targets to a whole family.
pub(super) struct Opening {
    pub(super) targets: TargetClass,
    pub(super) connection_type: ConnectionType,
    /// `IPv4` or `IPv6`.
    pub(super) family: &'static str,
    /// The first moment at which the family is wholly permitted, and was not to be without the change.
    pub(super) from: Moment,
}

/// What a change opens to whole families. A node that the change deletes is a target too: it has its parent's access.
pub(super) fn openings<'a>(
    before: Option<Version<'a>>,
    after: Version<'a>,
    now: Timestamp,
) -> Result<impl Iterator<Item = Opening> + 'a, TooCostly> {
    let side = |version| Side { version, above_nodes: Default::default(), allowlists: RefCell::default() };
    let (before, after) = (before.map(side), side(after));
    // A node can be open to a whole family only where all levels above the nodes let it through.
    let never = || [const { false }; 2].map(Timeline::constant);
    let through = |side: &Side<'_>| -> Result<[[Timeline; 2]; 2], TooCostly> {
        let above = EffectiveSet::Set(Arc::new(permitted_above(&side.version))).whole_families();
        if above == [false; 2] {
            return Ok([never(), never()]);
        }
        let firewall = side.version.snapshot.firewall();
        let [above_v4, above_v6] = above.map(Timeline::constant);
        let [Some(shell), Some(preview)] = firewall.of_types(|of| firewall.whole_families(of, now)) else {
            return Err(TooCostly);
        };
        Ok([shell, preview].map(|[v4, v6]| [above_v4.and(&v4), above_v6.and(&v6)]))
    };
    // For each connection type and family: when it is opened to a class that was closed to it, and to one that was not.
    let [was_of_shell, was_of_preview] = before.as_ref().map_or_else(|| Ok([never(), never()]), through)?;
    let [is_of_shell, is_of_preview] = through(&after)?;
    let of_types = [(was_of_shell, is_of_shell), (was_of_preview, is_of_preview)];
    let opened = of_types.map(|([was_v4, was_v6], [is_v4, is_v6])| {
        [(is_v4.first(), is_v4.and_not(&was_v4).first()), (is_v6.first(), is_v6.and_not(&was_v6).first())]
    });
    let is_any = opened.iter().flatten().any(|(closed, _)| closed.is_some());
    let organizations = (before.as_ref().map(|before| before.version.organization), after.version.organization);
    let classes = is_any.then(|| target_classes(organizations.1, organizations.0));
    Ok(classes.into_iter().flatten().flat_map(move |targets| {
        let was = before.as_ref().map_or([false; 2], |before| before.effective(&targets).whole_families());
        let is = after.effective(&targets).whole_families();
        let mut openings = Vec::new();
        for (connection_type, opened) in ConnectionType::ALL.into_iter().zip(opened) {
            let families = ["IPv4", "IPv6"].into_iter().zip(opened).zip(was.into_iter().zip(is));
            for ((family, (of_closed, of_open)), (was, is)) in families {
                let from = if was { of_open } else { of_closed }.filter(|_| is);
                openings.extend(from.map(|from| Opening { targets: targets.clone(), connection_type, family, from }));
            }
        }
        openings
    }))
}

impl<'a> Impact<'a> {
    /// Compares two versions at every moment from `now` on. None stands for an organization that does not exist.
    pub fn new(before: Option<Version<'a>>, after: Option<Version<'a>>, now: Timestamp) -> Self {
        let (mut before, mut after) =
            (before.map(|version| Side::new(version, now)), after.map(|version| Side::new(version, now)));
        let sets = || [&before, &after].into_iter().flatten().flat_map(|side| &side.above_nodes);
        if let Some(horizon) = sets().filter_map(TimedSet::horizon).min() {
            for side in [&mut before, &mut after].into_iter().flatten() {
                side.above_nodes = side.above_nodes.each_ref().map(|set| set.cut(horizon));
            }
        }
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

    /// The moment up to which differences are known; none where there is no such end.
    pub fn horizon(&self) -> Option<Timestamp> {
        [&self.before, &self.after].into_iter().flatten().flat_map(|side| &side.above_nodes).find_map(TimedSet::horizon)
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
        let [before, after] = [&self.before, &self.after]
            .map(|side| side.as_ref().map(|side| side.permitted(targets, connection_type)).unwrap_or_default());
        Flips::new(&before, &after)
    }

    /// What differs: class by class at the present moment, and then class by class later.
    pub fn differences(&self) -> impl Iterator<Item = Difference> + '_ {
        let passes = if self.changes_later() { &[true, false][..] } else { &[true][..] };
        passes.iter().flat_map(move |now| self.target_classes().flat_map(move |targets| self.of_class(&targets, *now)))
    }

    /// Whether something differs that begins later.
    fn changes_later(&self) -> bool {
        [&self.before, &self.after].into_iter().flatten().flat_map(|side| &side.above_nodes).any(TimedSet::changes)
    }

    /// What differs for a class: what begins now, or what begins later in the order of time.
    fn of_class(&self, targets: &TargetClass, now: bool) -> impl Iterator<Item = Difference> + use<> {
        let targets = targets.clone();
        let of_types = ConnectionType::ALL.map(|connection_type| self.flips(&targets, connection_type));
        let of_types = ConnectionType::ALL.into_iter().zip(of_types);
        of_types.flat_map(move |(connection_type, Flips { newly_permitted, newly_denied })| {
            let (permitted, denied) = (newly_permitted.by_period(), newly_denied.by_period());
            let periods: BTreeSet<Period> = permitted.periods().chain(denied.periods()).collect();
            let targets = targets.clone();
            periods.into_iter().filter(move |period| (period.from == Moment::Now) == now).map(move |period| {
                Difference {
                    targets: targets.clone(),
                    connection_type,
                    period,
                    newly_permitted: permitted.set(period),
                    newly_denied: denied.set(period),
                }
            })
        })
    }

    /// A superset of the addresses for which anything differs anywhere at any moment: cheap to compute, and enough to choose
    /// the past Checks that are worth deciding again.
    pub fn concerned(&self) -> RangeSet {
        if self.horizon().is_some() {
            return RangeSet::full();
        }
        let mut concerned = RangeSet::default();
        let mut add = |flips: &Flips| {
            concerned = concerned.union(&flips.newly_permitted.ever()).union(&flips.newly_denied.ever());
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
