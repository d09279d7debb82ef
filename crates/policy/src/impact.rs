//! What a change of the policy permits and denies differently, exactly (design.md §3.6).
//!
//! What is permitted at a node is what all levels above it let through, and its effective access too. A change above the
//! nodes is worked out once for all of them; a node is looked at by itself only where its own access differs.
//!
//! Invariant: an address is among the newly permitted of a place exactly where the evaluator denies it before and allows
//! it after, at the given moment; the same the other way round.
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

/// Something that connections are made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The organization itself.
    Organization,
    /// Every project that is not registered, and what is below it.
    AnyProject,
    /// A node, and what is below it and not registered.
    Node(NodeKey),
}

/// What differs at a place for one connection type. One of the sets at least is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub place: Place,
    /// For which connections.
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
    above: [Flips; 2],
}

/// Addresses that are decided differently.
#[derive(Clone, Default)]
struct Flips {
    permitted: RangeSet,
    denied: RangeSet,
}

/// One version and what it comes to.
struct Side<'a> {
    version: Version<'a>,
    /// What cluster, firewall and organization together let through, for each connection type.
    through: [RangeSet; 2],
    /// The addresses of allowlists, by what they list.
    lists: RefCell<HashMap<Vec<&'a Source>, Arc<RangeSet>>>,
}

/// The effective access at a place.
#[derive(Clone, PartialEq)]
enum Own {
    Nobody,
    All,
    Set(Arc<RangeSet>),
}

impl Own {
    fn of(&self, through: &RangeSet) -> RangeSet {
        match self {
            Self::Nobody => RangeSet::default(),
            Self::All => through.clone(),
            Self::Set(set) => through.intersection(set),
        }
    }
}

impl Place {
    /// Its name. A last part of `-` stands for every project that is not registered.
    pub fn name(&self, organization: &Id) -> String {
        match self {
            Self::Organization => Name::organization(organization).to_string(),
            Self::AnyProject => format!("organizations/{organization}/projects/-"),
            Self::Node(key) => Name::node(organization, key).to_string(),
        }
    }

    /// The name of a target that is decided as the place is.
    pub(super) fn target(&self, before: &Organization, after: Option<&Organization>) -> String {
        match self {
            Self::AnyProject => {
                let project = Self::unregistered(before, after);
                format!("{}/projects/{project}", Name::organization(&before.id))
            }
            _ => self.name(&before.id),
        }
    }

    /// The id of a project that neither version knows.
    fn unregistered(before: &Organization, after: Option<&Organization>) -> String {
        let known = |id: &str| {
            let knows =
                |organization: &Organization| organization.nodes.iter().any(|(key, _)| key.project.as_str() == id);
            knows(before) || after.is_some_and(knows)
        };
        // Among more ids than there can be nodes, one is free.
        (0..=u32::MAX).map(|number| format!("unregistered-{number}")).find(|id| !known(id)).unwrap_or_default()
    }
}

/// The places that are told apart in one of two versions.
pub fn places(one: &Organization, other: Option<&Organization>) -> impl Iterator<Item = Place> {
    let mut keys: BTreeSet<NodeKey> = one.nodes.iter().map(|(key, _)| key.clone()).collect();
    keys.extend(other.into_iter().flat_map(|other| other.nodes.iter()).map(|(key, _)| key.clone()));
    [Place::Organization, Place::AnyProject].into_iter().chain(keys.into_iter().map(Place::Node))
}

impl<'a> Side<'a> {
    fn new(version: Version<'a>, now: Timestamp) -> Self {
        let organization = version.organization;
        let permitted = organization
            .access_set(&organization.node.access)
            .intersection(&organization.access_set(&version.cluster.node.access));
        let through = ConnectionType::ALL
            .map(|connection_type| version.snapshot.firewall().allowed(connection_type, now).intersection(&permitted));
        Self { version, through, lists: RefCell::default() }
    }

    fn own(&self, place: &Place) -> Own {
        let organization = self.version.organization;
        let known = |key: &NodeKey| {
            let project = NodeKey { project: key.project.clone(), workspace: None, endpoint: None };
            organization.nodes.get(&project).is_some()
        };
        match place {
            Place::AnyProject if organization.node.require_projects => Own::Nobody,
            Place::Organization | Place::AnyProject => Own::All,
            Place::Node(key) if organization.node.require_projects && !known(key) => Own::Nobody,
            Place::Node(key) => match organization.effective_access(key) {
                None | Some((_, Access::AllowAll | Access::Inherit)) => Own::All,
                Some((_, access @ Access::AllowList(entries))) => {
                    let sources: Vec<&Source> = entries.iter().map(|entry| &entry.source).collect();
                    let mut lists = self.lists.borrow_mut();
                    let set = lists.entry(sources).or_insert_with(|| Arc::new(organization.access_set(access)));
                    Own::Set(Arc::clone(set))
                }
            },
        }
    }
}

/// What is permitted at a place by one version.
pub fn permitted(version: Version<'_>, place: &Place, connection_type: ConnectionType, now: Timestamp) -> RangeSet {
    let side = Side::new(version, now);
    side.own(place).of(of_type(&side.through, connection_type))
}

fn of_type<T>(both: &[T; 2], connection_type: ConnectionType) -> &T {
    let [shell, preview] = both;
    match connection_type {
        ConnectionType::Shell => shell,
        ConnectionType::Preview => preview,
    }
}

impl<'a> Impact<'a> {
    /// Compares two versions at a moment. None stands for an organization that does not exist.
    pub fn new(before: Option<Version<'a>>, after: Option<Version<'a>>, now: Timestamp) -> Self {
        let (before, after) =
            (before.map(|version| Side::new(version, now)), after.map(|version| Side::new(version, now)));
        let above = ConnectionType::ALL.map(|connection_type| {
            let through = |side: &Option<Side<'_>>| {
                side.as_ref().map(|side| of_type(&side.through, connection_type).clone()).unwrap_or_default()
            };
            let (before, after) = (through(&before), through(&after));
            Flips { permitted: after.difference(&before), denied: before.difference(&after) }
        });
        Self { before, after, above }
    }

    fn organizations(&self) -> (Option<&'a Organization>, Option<&'a Organization>) {
        let of = |side: &Option<Side<'a>>| side.as_ref().map(|side| side.version.organization);
        (of(&self.before), of(&self.after))
    }

    /// The places of both versions.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<'a> {
        let (before, after) = self.organizations();
        before.or(after).map(|one| places(one, after)).into_iter().flatten()
    }

    fn own(side: Option<&Side<'a>>, place: &Place) -> Own {
        side.map_or(Own::Nobody, |side| side.own(place))
    }

    fn through(side: Option<&Side<'a>>, connection_type: ConnectionType) -> RangeSet {
        side.map(|side| of_type(&side.through, connection_type).clone()).unwrap_or_default()
    }

    /// What is permitted at a place, before and after.
    pub fn permitted(&self, place: &Place, connection_type: ConnectionType) -> [RangeSet; 2] {
        [self.before.as_ref(), self.after.as_ref()]
            .map(|side| Self::own(side, place).of(&Self::through(side, connection_type)))
    }

    /// Whether the levels above the nodes let every address of a family through after the change.
    pub(super) fn lets_a_family_through(&self) -> bool {
        let full = RangeSet::full();
        self.after
            .iter()
            .flat_map(|side| &side.through)
            .any(|through| full.v4.is_subset(&through.v4) || full.v6.is_subset(&through.v6))
    }

    fn flips(&self, place: &Place, connection_type: ConnectionType) -> Flips {
        let (before, after) = (Self::own(self.before.as_ref(), place), Self::own(self.after.as_ref(), place));
        if before == after {
            let Flips { permitted, denied } = of_type(&self.above, connection_type);
            return Flips { permitted: before.of(permitted), denied: before.of(denied) };
        }
        let before = before.of(&Self::through(self.before.as_ref(), connection_type));
        let after = after.of(&Self::through(self.after.as_ref(), connection_type));
        Flips { permitted: after.difference(&before), denied: before.difference(&after) }
    }

    /// What differs, place by place.
    pub fn differences(&self) -> impl Iterator<Item = Difference> + '_ {
        let of_place = move |place: Place| {
            ConnectionType::ALL.into_iter().filter_map(move |connection_type| {
                let Flips { permitted, denied } = self.flips(&place, connection_type);
                let differs = !permitted.is_empty() || !denied.is_empty();
                differs.then(|| Difference {
                    place: place.clone(),
                    connection_type,
                    newly_permitted: permitted,
                    newly_denied: denied,
                })
            })
        };
        self.places().flat_map(of_place)
    }

    /// Addresses for which something may differ somewhere: all for which it does, and perhaps more.
    pub fn concerned(&self) -> RangeSet {
        let mut concerned = RangeSet::default();
        for Flips { permitted, denied } in &self.above {
            concerned = concerned.union(permitted).union(denied);
        }
        for place in self.places() {
            let (before, after) = (Self::own(self.before.as_ref(), &place), Self::own(self.after.as_ref(), &place));
            if before == after {
                continue;
            }
            for connection_type in ConnectionType::ALL {
                let Flips { permitted, denied } = self.flips(&place, connection_type);
                concerned = concerned.union(&permitted).union(&denied);
            }
        }
        concerned
    }
}
