//! Who gets in and who is kept out, as text.
//!
//! Invariant: of what the server tells, a whole address family comes first and is never left out. Ranges that are left out,
//! by the server or here, are counted for each family by itself; where an older server does not count, a line says so.
//! Not here: computing the differences, which the server does.

use std::cmp::Reverse;
use std::collections::HashMap;

use prost_types::Timestamp;

use super::color::{Colors, Look};
use super::table::{clean, connection_type, number, rest};
use super::times::rfc3339;
use portcullis_proto::v1;

/// The most ranges of one address family that a line shows.
const RANGES_SHOWN: usize = 8;

/// The most nodes with the same difference that the text names.
const NODES_SHOWN: usize = 20;

/// Whether something is so, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Is,
    Would,
}

/// Addresses that are decided differently through a period.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Flip<'a> {
    permitted: bool,
    ranges: &'a [String],
    /// How many there are of IPv4 and of IPv6, also those that the server left out. Older servers do not tell.
    counts: Option<[i64; 2]>,
    truncated: bool,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

/// A node with connection types.
type Typed<'a> = (&'a str, Vec<i32>);

/// Nodes at which the same is decided differently, each with its connection types.
struct Group<'a> {
    flips: Vec<Flip<'a>>,
    nodes: Vec<Typed<'a>>,
}

/// How much a difference matters: what opens a family to everybody comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    OpensFamily,
    ClosesFamily,
    SomeRanges,
}

/// The differences, those about a whole address family first. Nodes with the same difference are listed together.
pub(super) fn text(differences: &[v1::AccessDifference], told: Told, colors: Colors) -> String {
    let mut groups = groups(differences);
    groups.sort_by_key(|group| group.flips.iter().map(Flip::weight).min());
    groups.iter().map(|group| group.text(told, colors)).collect()
}

/// Whole address families, or most of one, that are permitted or denied differently: what opens one first, a line for each
/// period.
pub(super) fn families(differences: &[v1::AccessDifference], told: Told) -> Vec<String> {
    let mut heads: Vec<(Weight, String, Vec<Typed<'_>>)> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for of in differences {
        for flip in Flip::of(of).filter(|flip| flip.weight() != Weight::SomeRanges) {
            let head = flip.head(told);
            let index = *known.entry(head.clone()).or_insert(heads.len());
            if heads.len() == index {
                heads.push((flip.weight(), head, Vec::new()));
            }
            let Some((.., nodes)) = heads.get_mut(index) else { continue };
            match nodes.last_mut() {
                Some((node, types)) if *node == of.node => types.push(of.connection_type),
                _ => nodes.push((&of.node, vec![of.connection_type])),
            }
        }
    }
    heads.sort_by_key(|(weight, ..)| *weight);
    let line = |(_, head, nodes): (Weight, String, Vec<Typed<'_>>)| format!("{head}, at {}", named(&nodes));
    heads.into_iter().map(line).collect()
}

/// The most nodes that a line about address families names.
const NODES_NAMED: usize = 3;

/// How the name of the projects that do not exist ends.
pub(super) const UNREGISTERED: &str = "/projects/-";

/// The first nodes with their connection types, and how many more there are.
fn named(nodes: &[Typed<'_>]) -> String {
    let node = |(node, types): &Typed<'_>| {
        let types: Vec<String> = types.iter().map(|number| connection_type(*number)).collect();
        let node = match node.strip_suffix(UNREGISTERED) {
            Some(organization) => format!("projects of {} that do not exist", clean(organization)),
            None => clean(node),
        };
        format!("{node} ({})", types.join(", "))
    };
    // What does not exist is decided as the organization is, where that is in the list.
    let is_told = |(name, types): &&Typed<'_>| {
        let organization = name.strip_suffix(UNREGISTERED);
        !nodes.iter().any(|(other, of_other)| Some(*other) == organization && of_other == types)
    };
    let nodes: Vec<&Typed<'_>> = nodes.iter().filter(is_told).collect();
    let shown: Vec<String> = nodes.iter().copied().take(NODES_NAMED).map(node).collect();
    match nodes.len().saturating_sub(NODES_NAMED) {
        0 => shown.join(", "),
        1 => format!("{} and 1 more node", shown.join(", ")),
        more => format!("{} and {more} more nodes", shown.join(", ")),
    }
}

fn groups(differences: &[v1::AccessDifference]) -> Vec<Group<'_>> {
    let mut targets: Vec<(&v1::AccessDifference, Vec<Flip<'_>>)> = Vec::new();
    let mut known: HashMap<(&str, i32), usize> = HashMap::new();
    for of in differences {
        let index = *known.entry((&of.node, of.connection_type)).or_insert(targets.len());
        match targets.get_mut(index) {
            Some((_, flips)) => flips.extend(Flip::of(of)),
            None => targets.push((of, Flip::of(of).collect())),
        }
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut known: HashMap<Vec<Flip<'_>>, usize> = HashMap::new();
    for (of, mut flips) in targets {
        flips.sort_by_key(Flip::weight);
        let index = *known.entry(flips.clone()).or_insert(groups.len());
        if groups.len() == index {
            groups.push(Group { flips, nodes: Vec::new() });
        }
        let Some(Group { nodes, .. }) = groups.get_mut(index) else { continue };
        match nodes.last_mut() {
            Some((node, types)) if *node == of.node => types.push(of.connection_type),
            _ => nodes.push((&of.node, vec![of.connection_type])),
        }
    }
    groups
}

impl Group<'_> {
    fn text(&self, told: Told, colors: Colors) -> String {
        let mut text = vec!["\n".to_owned()];
        for (node, types) in self.nodes.iter().take(NODES_SHOWN) {
            let types: Vec<String> = types.iter().map(|number| connection_type(*number)).collect();
            text.push(format!("{} ({})\n", clean(node), types.join(", ")));
        }
        text.push(rest(self.nodes.len(), NODES_SHOWN, "node"));
        text.extend(self.flips.iter().map(|flip| flip.text(told, colors)));
        text.concat()
    }
}

impl<'a> Flip<'a> {
    /// What is permitted and what is denied by one difference.
    fn of(of: &'a v1::AccessDifference) -> impl Iterator<Item = Self> {
        let flip = |permitted, ranges: &'a [String], counts: &Option<v1::RangeCount>| Self {
            permitted,
            ranges,
            counts: counts.map(|counts| [counts.ipv4_count, counts.ipv6_count]),
            truncated: of.truncated,
            from: of.from_time,
            to: of.to_time,
        };
        let flips = [
            flip(true, &of.newly_permitted, &of.newly_permitted_count),
            flip(false, &of.newly_denied, &of.newly_denied_count),
        ];
        flips.into_iter().filter(|flip| !flip.ranges.is_empty())
    }

    fn weight(&self) -> Weight {
        let is_wide = Family::BOTH.iter().any(|family| family.share(self.ranges) >= HALF);
        match (is_wide, self.permitted) {
            (true, true) => Weight::OpensFamily,
            (true, false) => Weight::ClosesFamily,
            (false, _) => Weight::SomeRanges,
        }
    }

    fn text(&self, told: Told, colors: Colors) -> String {
        let (sign, word, look) =
            if self.permitted { ("+", "permitted", Look::Green) } else { ("-", "denied", Look::Red) };
        let would = if told == Told::Would { "would be " } else { "" };
        let label = format!("{sign} {would}{word} {}:", self.period());
        let cut = if self.truncated && self.counts.is_none() { "; the server names no more than these" } else { "" };
        format!("  {} {}{cut}\n", colors.paint(look, &label), shown(self.ranges, self.counts))
    }

    /// The families that it is about, and what becomes of them.
    fn head(&self, told: Told) -> String {
        let would = if told == Told::Would { "would be " } else { "" };
        let word = if self.permitted { "permitted" } else { "denied" };
        let family = |family: Family| match (family.is_whole(self.ranges), family.share(self.ranges) >= HALF) {
            (true, _) => Some(format!("every {} address", family.name())),
            (false, true) => Some(format!("most {} addresses", family.name())),
            (false, false) => None,
        };
        let families: Vec<String> = if self.ranges.iter().any(|range| range == ANY) {
            vec!["every IPv4 address and every IPv6 address".to_owned()]
        } else {
            Family::BOTH.into_iter().filter_map(family).collect()
        };
        format!("{would}{word} {}: {}", self.period(), families.join(" and "))
    }

    fn period(&self) -> String {
        match (&self.from, &self.to) {
            (None, None) => "from now on".to_owned(),
            (None, Some(to)) => format!("from now until {}", rfc3339(to)),
            (Some(from), None) => format!("from {} on", rfc3339(from)),
            (Some(from), Some(to)) => format!("from {} until {}", rfc3339(from), rfc3339(to)),
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ipv4,
    Ipv6,
}

/// As much of a family counts as the family.
const HALF: f64 = 0.5;

impl Family {
    const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    fn whole(self) -> &'static str {
        match self {
            Self::Ipv4 => "0.0.0.0/0",
            Self::Ipv6 => "::/0",
        }
    }

    fn is_whole(self, ranges: &[String]) -> bool {
        ranges.iter().any(|range| range == self.whole())
    }

    /// Whether a range in text is of this family only.
    fn has(self, range: &str) -> bool {
        range != ANY && range.contains(':') == (self == Self::Ipv6)
    }

    /// How many bits of a range are given.
    fn prefix(self, range: &str) -> i32 {
        let bits = match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        };
        range.rsplit_once('/').and_then(|(_, length)| length.parse().ok()).unwrap_or(bits)
    }

    /// How much of the family disjoint ranges are, from 0 to 1.
    fn share(self, ranges: &[String]) -> f64 {
        if ranges.iter().any(|range| range == ANY) {
            return 1.0;
        }
        ranges.iter().filter(|range| self.has(range)).map(|range| 2f64.powi(-self.prefix(range))).sum()
    }

    /// The ranges of the family: all of it in a word, or the widest ones and how many more there are.
    fn text(self, ranges: &[String], counts: Option<[i64; 2]>) -> Option<String> {
        if self.is_whole(ranges) {
            return Some(format!("every {} address ({})", self.name(), self.whole()));
        }
        let mut own: Vec<&String> = ranges.iter().filter(|range| self.has(range)).collect();
        own.sort_by_key(|range| self.prefix(range));
        let shown: Vec<String> = own.iter().take(RANGES_SHOWN).map(|range| clean(range)).collect();
        let most = if self.share(ranges) >= HALF { format!("most {} addresses: ", self.name()) } else { String::new() };
        let known = i64::try_from(own.len()).unwrap_or(i64::MAX);
        let count = counts.map_or(known, |[ipv4, ipv6]| if self == Self::Ipv4 { ipv4 } else { ipv6 }).max(known);
        let more = match count - i64::try_from(shown.len()).unwrap_or(i64::MAX) {
            0 => String::new(),
            1 => format!(" and 1 more {} range", self.name()),
            more => format!(" and {} more {} ranges", number(more), self.name()),
        };
        (!own.is_empty()).then(|| format!("{most}{}{more}", shown.join(" ")))
    }
}

/// The range that is both families.
const ANY: &str = "any";

/// Ranges, the family of which there is more first.
fn shown(ranges: &[String], counts: Option<[i64; 2]>) -> String {
    if ranges.iter().any(|range| range == ANY) {
        return format!("every IPv4 and every IPv6 address ({ANY})");
    }
    let mut families = Family::BOTH;
    families.sort_by_key(|family| Reverse((family.is_whole(ranges), family.share(ranges) >= HALF)));
    let texts: Vec<String> = families.iter().filter_map(|family| family.text(ranges, counts)).collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::ColorWhen;
    use crate::output::{Format, Output};

    fn ranges(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn difference(node: &str, permitted: &[&str], denied: &[&str], period: (i64, i64)) -> v1::AccessDifference {
        let time = |seconds: i64| (seconds != 0).then_some(Timestamp { seconds, nanos: 0 });
        v1::AccessDifference {
            node: node.to_owned(),
            connection_type: v1::ConnectionType::Shell.into(),
            newly_permitted: ranges(permitted),
            newly_denied: ranges(denied),
            from_time: time(period.0),
            to_time: time(period.1),
            ..v1::AccessDifference::default()
        }
    }

    fn told(differences: &[v1::AccessDifference]) -> String {
        text(differences, Told::Would, Colors::of(ColorWhen::Never, &Output::standard(Some(Format::Table))))
    }

    /// The hazard: all of IPv6 opens, and the line ends in "and 1 more".
    #[test]
    fn whole_family_is_named_first_and_what_is_left_out_is_counted() {
        let many: Vec<String> = (0..12).map(|number| format!("10.{number}.0.0/16")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).chain(["192.0.0.0/3", "::/0"]).collect();
        let shown = told(&[difference("small", &["192.0.2.1"], &[], (0, 0)), difference("large", &many, &[], (0, 0))]);
        let expected = "\nlarge (shell)\n  + would be permitted from now on: every IPv6 address (::/0); 192.0.0.0/3 \
                        10.0.0.0/16 10.1.0.0/16 10.2.0.0/16 10.3.0.0/16 10.4.0.0/16 10.5.0.0/16 10.6.0.0/16 and 5 \
                        more IPv4 ranges\n\nsmall (shell)\n  + would be permitted from now on: 192.0.2.1\n";
        assert_eq!(shown, expected);
        // The server shows a part, and counts all.
        let count = |ipv4_count, ipv6_count| Some(v1::RangeCount { ipv4_count, ipv6_count });
        let newly_permitted = ranges(&["::/0", "10.0.0.0/8", "192.0.2.1"]);
        let cut = v1::AccessDifference {
            newly_permitted,
            newly_permitted_count: count(20_000, 1),
            truncated: true,
            ..difference("n", &[], &[], (0, 0))
        };
        let expected = "every IPv6 address (::/0); 10.0.0.0/8 192.0.2.1 and 19,998 more IPv4 ranges\n";
        assert!(told(&[cut]).ends_with(expected));
        assert!(told(&[difference("n", &[], &["128.0.0.0/1", "0.0.0.0/2"], (0, 0))]).contains("most IPv4 addresses: "));
    }

    #[test]
    fn every_period_of_a_node_is_told_and_nodes_that_are_alike_stand_together() {
        let of = |node: &str| {
            [
                difference(node, &["192.0.2.1"], &["10.0.0.0/8"], (0, 60)),
                difference(node, &["192.0.2.0/24"], &[], (60, 120)),
                difference(node, &[], &["any"], (120, 0)),
            ]
        };
        let expected = "\none (shell)\ntwo (shell)\n  - would be denied from 1970-01-01T00:02:00Z on: every IPv4 and \
                        every IPv6 address (any)\n  + would be permitted from now until 1970-01-01T00:01:00Z: \
                        192.0.2.1\n  - would be denied from now until 1970-01-01T00:01:00Z: 10.0.0.0/8\n  + would be \
                        permitted from 1970-01-01T00:01:00Z until 1970-01-01T00:02:00Z: 192.0.2.0/24\n";
        assert_eq!(told(&[of("one"), of("two")].concat()), expected);
    }
}
