//! The compiled firewall: the rule that wins at every address, now and after it expires (design.md §2.2).
//!
//! Each interval of addresses is labelled with its first matching rule. If that rule expires, the label names a chain
//! instead: the rules that win one after the other, down to the first that never expires. A rule that expires no later
//! than one above it can never win, so the chain leaves it out. Expiry is therefore judged at the decision, and needs
//! no timer.
//!
//! Invariant: for every moment, address and connection type the answer is the first rule in order that is enabled, is
//! not expired, applies to the type and contains the address.
//! Not here: how labels are computed (`overlay`), allowlists (`members`), the order of steps (`snapshot`).

use std::collections::HashMap;
use std::hint::select_unpredictable;
use std::sync::Arc;

use super::address::Address;
use super::classes::Classes;
use super::cow_map::CowMap;
use super::decision::{Decision, Reason, Verdict};
use super::group::Group;
use super::interned::Interned;
use super::intervals::IntervalSet;
use super::name::Id;
use super::organization::Organization;
use super::overlay::{Chain, FIRST_CHAIN, NO_RULE, Overlay};
use super::ranges::RangeSet;
use super::rule::{Action, ConnectionType, Rule, Source};
use super::table::Table;
use super::time::Timestamp;
use super::timed_set::TimedSet;
use super::timeline::{Moment, Timeline};

/// The turns of the timelines of all addresses together, 16 bytes each. Without a bound, half as many rules as there may
/// be could give each of as many ranges a timeline as long.
const TURNS_MAX: usize = 4_000_000;

/// The firewall of one organization, compiled.
#[derive(Clone, Debug)]
pub struct Firewall {
    pub(super) rules: Arc<Vec<Arc<Rule>>>,
    /// Needed for the rare chains that do not hold all of their rules.
    pub(super) groups: CowMap<Id, Group>,
    /// The reason for each label below the first chain's: no rule, then every rule in order.
    reasons: Arc<[Reason]>,
    /// The same table as `preview`'s, unless a rule applies to one of the two types only.
    shell: Arc<FirewallTable>,
    preview: Arc<FirewallTable>,
}

/// The table of one connection type.
#[derive(Debug)]
struct FirewallTable {
    v4: Table<u32>,
    v6: Table<u128>,
    chains: Vec<Chain>,
}

impl Firewall {
    /// Compiles the firewall.
    pub fn compile(organization: &Organization) -> Self {
        let rules = Arc::clone(&organization.rules);
        let mut told_apart = false;
        let of_rules = rules.iter().map(|rule| {
            let applies = |connection_type| rule.connection_types.applies_to(connection_type);
            told_apart |= applies(ConnectionType::Shell) != applies(ConnectionType::Preview);
            match rule.action {
                Action::Allow => Reason::AllowRule,
                Action::Deny => Reason::DenyRule,
            }
        });
        // Reasons lie close together in memory, while the rules themselves lie far apart.
        let reasons: Arc<[Reason]> = std::iter::once(Reason::DefaultAllow).chain(of_rules).collect();
        let compile = |connection_type| Arc::new(FirewallTable::compile(organization, connection_type));
        let shell = compile(ConnectionType::Shell);
        let preview = if told_apart { compile(ConnectionType::Preview) } else { Arc::clone(&shell) };
        Self { rules, groups: organization.groups.clone(), reasons, shell, preview }
    }

    fn table(&self, connection_type: ConnectionType) -> &FirewallTable {
        match connection_type {
            ConnectionType::Shell => &self.shell,
            ConnectionType::Preview => &self.preview,
        }
    }

    /// The first matching rule at `now`, and its 0-based index.
    #[inline]
    pub fn first_match(
        &self,
        address: Address,
        connection_type: ConnectionType,
        now: Timestamp,
    ) -> Option<(usize, &Rule)> {
        self.verdict(address, connection_type, now).rule
    }

    /// What the firewall alone decides at `now`.
    #[inline]
    pub fn verdict(&self, address: Address, connection_type: ConnectionType, now: Timestamp) -> Verdict<'_> {
        let table = self.table(connection_type);
        let label = match address {
            Address::V4(word) => table.v4.label(word),
            Address::V6(word) => table.v6.label(word),
        };
        let label = if label < FIRST_CHAIN {
            label
        } else {
            self.first_alive(table.chain(label), address, connection_type, now)
        };
        self.verdict_of(label)
    }

    /// The verdict of a label that names no chain.
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "labels are made from this list; a wrong one must not pass as no match"
    )]
    fn verdict_of(&self, label: u32) -> Verdict<'_> {
        // The first rule is read even when none matches: a branch on the label would often be mispredicted.
        let index = (label as usize).saturating_sub(1);
        let rule = self.rules.get(index).map(|rule| (index, &**rule));
        let rule = select_unpredictable(label == NO_RULE, None, rule);
        Verdict { reason: self.reasons[label as usize], rule, first_match: rule.map(|(index, _)| index), level: None }
    }

    /// The label of the first rule of a chain that is not expired.
    #[cold]
    fn first_alive(&self, chain: &Chain, address: Address, connection_type: ConnectionType, now: Timestamp) -> u32 {
        if let Some(label) = self.first_alive_listed(chain, now) {
            return label;
        }
        let Some(from) = chain.scan_from else { return NO_RULE };
        let matches = |rule: &Rule| Self::is_alive(rule, connection_type, now) && self.contains(&rule.source, address);
        let later = (from..).zip(self.rules.iter().skip(from as usize));
        later.into_iter().find(|(_, rule)| matches(rule)).map_or(NO_RULE, |(index, _)| index + 1)
    }

    fn first_alive_listed(&self, chain: &Chain, now: Timestamp) -> Option<u32> {
        let expire_time = |index: u32| self.rules.get(index as usize).and_then(|rule| rule.end());
        let alive = |index: &u32| expire_time(*index).is_none_or(|time| now < time);
        chain.rules.iter().copied().find(alive).map(|index| index + 1)
    }

    /// What the firewall alone decides at an address from `now` on, step by step: the first decides now, and each other
    /// from its moment on. Takes one pass over the rules at most, because a rule that wins later has a higher index.
    pub fn steps(
        &self,
        address: Address,
        connection_type: ConnectionType,
        now: Timestamp,
    ) -> impl Iterator<Item = (Moment, Verdict<'_>)> {
        let table = self.table(connection_type);
        let label = table.label(address);
        let (listed, scan_from): (&[u32], _) = match label.checked_sub(FIRST_CHAIN) {
            Some(_) => (&table.chain(label).rules, table.chain(label).scan_from),
            None => (&[], None),
        };
        let alone = label.checked_sub(1).filter(|_| label < FIRST_CHAIN);
        // Asked once for each group, because many rules can name one.
        let mut of_groups: HashMap<&Id, bool> = HashMap::new();
        let matches = move |index: u32| {
            let is_listed = scan_from.is_none_or(|from| index < from);
            is_listed
                || self.rules.get(index as usize).is_some_and(|rule| {
                    Self::is_enabled(rule, connection_type)
                        && match &rule.source {
                            Source::Group(id) => {
                                *of_groups.entry(id).or_insert_with(|| self.contains(&rule.source, address))
                            }
                            range @ Source::Range(_) => self.contains(range, address),
                        }
                })
        };
        let count = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        let scanned = scan_from.into_iter().flat_map(move |from| from..count);
        self.winners(alone.into_iter().chain(listed.iter().copied()).chain(scanned), matches, now)
    }

    /// Of rules in order, those that match: which win from `now` on, and from when. Whether one matches is asked only where
    /// it outlives those above it.
    fn winners<'a>(
        &'a self,
        rules: impl Iterator<Item = u32> + 'a,
        mut matches: impl FnMut(u32) -> bool + 'a,
        now: Timestamp,
    ) -> impl Iterator<Item = (Moment, Verdict<'a>)> + 'a {
        let (mut rules, mut at, mut decided) = (rules, (Moment::Now, now), false);
        std::iter::from_fn(move || {
            if decided {
                return None;
            }
            let (moment, time) = at;
            let expire_time = |index: u32| self.rules.get(index as usize).and_then(|rule| rule.end());
            let outlives = |index: u32| expire_time(index).is_none_or(|expires| time < expires);
            let next = rules.find(|index| outlives(*index) && matches(*index));
            match next.and_then(expire_time) {
                Some(expires) => at = (Moment::At(expires), expires),
                None => decided = true,
            }
            Some((moment, self.verdict_of(next.map_or(NO_RULE, |index| index + 1))))
        })
    }

    /// When the firewall alone allows an address.
    pub fn timeline(&self, address: Address, connection_type: ConnectionType, now: Timestamp) -> Timeline {
        let steps = self.steps(address, connection_type, now);
        Timeline::of_steps(steps.map(|(moment, verdict)| (moment, verdict.decision() == Decision::Allow)))
    }

    /// The label of an address; none where its chain does not hold all of its rules.
    pub(super) fn whole_label(&self, address: Address, connection_type: ConnectionType) -> Option<u32> {
        let table = self.table(connection_type);
        let label = table.label(address);
        (label < FIRST_CHAIN || table.chain(label).scan_from.is_none()).then_some(label)
    }

    /// What is decided where a label is that [`Firewall::whole_label`] told, step by step: whether it is allowed.
    pub(super) fn steps_of_label(
        &self,
        label: u32,
        connection_type: ConnectionType,
        now: Timestamp,
    ) -> impl Iterator<Item = (Moment, bool)> {
        let listed: &[u32] = match label.checked_sub(FIRST_CHAIN) {
            Some(_) => &self.table(connection_type).chain(label).rules,
            None => &[],
        };
        let alone = label.checked_sub(1).filter(|_| label < FIRST_CHAIN);
        let steps = self.winners(alone.into_iter().chain(listed.iter().copied()), |_| true, now);
        steps.map(|(moment, verdict)| (moment, verdict.decision() == Decision::Allow))
    }

    /// Whether some chain does not hold all of its rules, and so which ones win is to be found out in another way.
    fn scans(&self, connection_type: ConnectionType) -> bool {
        self.table(connection_type).chains.iter().any(|chain| chain.scan_from.is_some())
    }

    /// The timeline of each chain of a table, all of whose chains hold all of their rules; and at its end that of an
    /// address that is always allowed.
    fn of_chains(&self, connection_type: ConnectionType, now: Timestamp) -> Vec<Timeline> {
        let labels = (FIRST_CHAIN..).zip(&self.table(connection_type).chains);
        let of_chain = |(label, _)| Timeline::of_steps(self.steps_of_label(label, connection_type, now));
        labels.map(of_chain).chain([Timeline::constant(true)]).collect()
    }

    /// The addresses that the firewall lets through, each at the moments from `now` on at which it does. Where timelines
    /// would take far more memory than the rules do, they are cut: see [`TimedSet::horizon`].
    pub fn allowed_from(&self, connection_type: ConnectionType, now: Timestamp) -> TimedSet {
        let table = self.table(connection_type);
        let mut timelines = Interned::default();
        if self.scans(connection_type) {
            let Some(classes) = self.classes(connection_type, now, None) else {
                let expire_times = self.rules.iter().filter_map(|rule| rule.end());
                let first = expire_times.filter(|time| now < *time).min();
                let allowed = TimedSet::constant(&self.allowed(connection_type, now));
                return first.map_or_else(|| allowed.clone(), |first| allowed.cut(first));
            };
            let sets = [&classes.v4.sets, &classes.v6.sets];
            let turns_max = TURNS_MAX / sets.iter().map(|of_family| of_family.len()).sum::<usize>().max(1);
            let [of_v4, of_v6] = sets.map(|of_family| {
                let number = |set: &u32| timelines.number_at_most(classes.steps(*set), turns_max);
                of_family.iter().map(number).collect::<Vec<_>>()
            });
            let number = |numbers: &[Option<u32>], class: u32| numbers.get(class as usize).copied().flatten();
            let (v4, v6) = (&classes.v4.map, &classes.v6.map);
            return TimedSet::new((v4, |class| number(&of_v4, class)), (v6, |class| number(&of_v6, class)), timelines);
        }
        let of_chains: Vec<Option<u32>> =
            self.of_chains(connection_type, now).into_iter().map(|timeline| timelines.number(timeline)).collect();
        let always = of_chains.last().copied().flatten();
        let number = |label: u32| match label.checked_sub(FIRST_CHAIN) {
            Some(chain) => of_chains.get(chain as usize).copied().flatten(),
            None => always.filter(|_| self.verdict_of(label).decision() == Decision::Allow),
        };
        TimedSet::new((table.v4.map(), number), (table.v6.map(), number), timelines)
    }

    /// The classes of all addresses, or of some; none where finding them takes too many steps.
    pub(super) fn classes(
        &self,
        connection_type: ConnectionType,
        now: Timestamp,
        points: Option<&[Address]>,
    ) -> Option<Classes> {
        Classes::new(&self.rules, &self.groups, connection_type, now, points)
    }

    /// When the firewall lets all addresses of IPv4 through, and when all of IPv6, from `now` on. However many rules expire
    /// one after the other, it takes time in proportion to the rules and their ranges; none where many rules are about each
    /// of many ranges, and it takes too long.
    pub fn whole_families(&self, connection_type: ConnectionType, now: Timestamp) -> Option<[Timeline; 2]> {
        if self.scans(connection_type) {
            let classes = self.classes(connection_type, now, None)?;
            return classes.undenied(|rule| self.verdict_of(rule + 1).decision() == Decision::Deny);
        }
        let table = self.table(connection_type);
        let of_chains = self.of_chains(connection_type, now);
        Some([table.v4.map().labels(), table.v6.map().labels()].map(|labels| {
            let mut used = vec![false; of_chains.len()];
            for label in labels {
                match label.checked_sub(FIRST_CHAIN) {
                    None if self.verdict_of(*label).decision() == Decision::Deny => return Timeline::constant(false),
                    None => {}
                    Some(chain) => used.get_mut(chain as usize).into_iter().for_each(|used| *used = true),
                }
            }
            let used = of_chains.iter().zip(used).filter(|(_, used)| *used);
            let missing: Vec<Timeline> = used.map(|(timeline, _)| timeline.negated()).collect();
            Timeline::any(&missing).negated()
        }))
    }

    /// Whether some rule applies to one connection type only.
    pub(super) fn tells_types_apart(&self) -> bool {
        !Arc::ptr_eq(&self.shell, &self.preview)
    }

    /// Something about the firewall for each connection type: computed once where it tells them not apart.
    pub(super) fn of_types<T: Clone>(&self, of: impl Fn(ConnectionType) -> T) -> [T; 2] {
        let shell = of(ConnectionType::Shell);
        let preview = if self.tells_types_apart() { of(ConnectionType::Preview) } else { shell.clone() };
        [shell, preview]
    }

    /// Whether some rule that is not expired will expire: then decisions can differ from moment to moment.
    pub fn changes_after(&self, now: Timestamp) -> bool {
        self.rules.iter().any(|rule| !rule.disabled && rule.end().is_some_and(|time| now < time))
    }

    fn is_enabled(rule: &Rule, connection_type: ConnectionType) -> bool {
        !rule.disabled && !rule.expired && rule.connection_types.applies_to(connection_type)
    }

    fn is_alive(rule: &Rule, connection_type: ConnectionType, now: Timestamp) -> bool {
        Self::is_enabled(rule, connection_type) && !rule.has_expired(now)
    }

    fn contains(&self, source: &Source, address: Address) -> bool {
        match source {
            Source::Range(range) => range.contains(address),
            Source::Group(id) => self.groups.get(id.as_str()).is_some_and(|group| group.set().contains(address)),
        }
    }

    /// The addresses that the firewall lets through at `now`.
    pub fn allowed(&self, connection_type: ConnectionType, now: Timestamp) -> RangeSet {
        let table = self.table(connection_type);
        let mut settled = true;
        let mut allowed = |label: u32| {
            let label = if label < FIRST_CHAIN {
                Some(label)
            } else {
                let chain = table.chain(label);
                self.first_alive_listed(chain, now).or(chain.scan_from.is_none().then_some(NO_RULE))
            };
            settled &= label.is_some();
            label.is_some_and(|label| self.verdict_of(label).decision() == Decision::Allow)
        };
        let v4 = IntervalSet::from_map(table.v4.map(), &mut allowed);
        let v6 = IntervalSet::from_map(table.v6.map(), &mut allowed);
        if settled {
            return RangeSet { v4, v6 };
        }
        // Some chain does not hold the rule that wins at `now`, so the labels of that moment are computed.
        let Overlay { v4, v6, .. } = Overlay::at(&self.rules, &self.groups, connection_type, now);
        let allows = |label: u32| self.verdict_of(label).decision() == Decision::Allow;
        RangeSet { v4: IntervalSet::from_map(&v4, allows), v6: IntervalSet::from_map(&v6, allows) }
    }
}

impl FirewallTable {
    fn compile(organization: &Organization, connection_type: ConnectionType) -> Self {
        let Overlay { v4, v6, chains } = Overlay::new(&organization.rules, &organization.groups, connection_type);
        Self { v4: Table::new(v4), v6: Table::new(v6), chains }
    }

    fn label(&self, address: Address) -> u32 {
        match address {
            Address::V4(word) => self.v4.label(word),
            Address::V6(word) => self.v6.label(word),
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "labels are made from this list; a wrong one must not pass as no match"
    )]
    fn chain(&self, label: u32) -> &Chain {
        &self.chains[(label - FIRST_CHAIN) as usize]
    }
}
