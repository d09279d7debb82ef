//! The naive evaluator: the meaning of a decision (§2.1–§2.4), written a second time and as plainly
//! as possible.
//!
//! Invariant: this file knows the contract and nothing else. It has its own addresses, its own
//! parser of their text, its own policy types and linear scans in the order of the table of §2.4,
//! so that what it says and what the service says can only agree because both follow the contract.
//!
//! What it deliberately does not do: it is not fast (it parses every range again for every
//! decision), it keeps no state, reads no clock, does not validate a policy (an impossible one
//! panics) and uses nothing of the crate under test, of `ipnet` or of `std::net`; only its own
//! tests compare it with the latter.

use std::collections::BTreeMap;
use std::fmt;

// Addresses and ranges, §2.1: definitions ---------------------------------------------------------

/// One address. `V6` never holds an IPv4-mapped address: every way in goes through
/// [`Address::from_v6_bits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Address {
    V4(u32),
    V6(u128),
}

/// One range. `first` has no bits set beyond `len`; a `V6` range never lies within the mapped block
/// `::ffff:0:0/96`, but may lie around it, and then holds none of its addresses, for they are IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Range {
    Any,
    V4 { first: u32, len: u32 },
    V6 { first: u128, len: u32 },
}

// Policy and answer, §2.2–§2.6: definitions -------------------------------------------------------

/// Everything that a decision depends on, besides the request and the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The own access of the node `cluster`: `AllowAll`, or ranges only (no groups: they belong to
    /// organizations).
    pub(crate) cluster: Access,
    pub(crate) cluster_revision: i64,
    /// By id (`acme`, not `organizations/acme`).
    pub(crate) organizations: BTreeMap<String, Organization>,
}

/// One organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Organization {
    pub(crate) revision: i64,
    pub(crate) require_projects: bool,
    /// The organization's own access; never `Inherit`.
    pub(crate) access: Access,
    /// In order: position 1 first.
    pub(crate) rules: Vec<Rule>,
    /// Ranges as text, in any accepted spelling, by the group's id.
    pub(crate) groups: BTreeMap<String, Vec<String>>,
    /// Own access by *full* name, for projects (never `Inherit`), workspaces and endpoints. A
    /// node's parent is a node.
    pub(crate) nodes: BTreeMap<String, Access>,
}

/// One firewall rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The last segment of its name.
    pub(crate) id: String,
    pub(crate) action: Action,
    pub(crate) source: Source,
    /// Empty = all.
    pub(crate) connection_types: Vec<ConnectionType>,
    pub(crate) disabled: bool,
    /// The first moment at which the rule no longer matches.
    pub(crate) expire_time_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
}

/// What a rule or an allowlist entry names: a range as text, in any accepted spelling, or a group's
/// id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Range(String),
    Group(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ConnectionType {
    Shell,
    Preview,
}

/// A node's own setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Inherit,
    AllowAll,
    AllowList(Vec<Source>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    AllowRule,
    DefaultAllow,
    UnknownEndpoint,
    OutsideCluster,
    DenyRule,
    OutsideOrganization,
    OutsideEndpoint,
}

/// The part of a `Check` answer that follows from policy, request and time alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) allow: bool,
    pub(crate) reason: Reason,
    pub(crate) message: &'static str,
    /// Full name; for `AllowRule` and `DenyRule` only.
    pub(crate) rule: Option<String>,
    /// Full name; for the `Outside…` reasons only.
    pub(crate) node: Option<String>,
    /// 0 for an unknown organization.
    pub(crate) revision: i64,
    pub(crate) cluster_revision: i64,
}

// The decision, §2.4 ------------------------------------------------------------------------------

/// Decides. Panics where the service answers `INVALID_ARGUMENT` (an `endpoint` that names no
/// organization, project, workspace or endpoint; `cluster` is such a name too) and on a policy that
/// the service could not hold.
pub(crate) fn decide(
    policy: &Policy,
    ip: Address,
    connection_type: ConnectionType,
    endpoint: &str,
    now_ms: i64,
) -> Answer {
    let lineage = lineage(endpoint).unwrap_or_else(|why| panic!("`{endpoint}` cannot be checked: {why}"));
    let organization_name = &lineage[0];
    let organization_id = organization_name.rsplit('/').next().unwrap_or_default();

    let mut answer = Answer {
        allow: false,
        reason: Reason::UnknownEndpoint,
        message: "",
        rule: None,
        node: None,
        revision: 0,
        cluster_revision: policy.cluster_revision,
    };

    // Step 1: target. It comes before the cluster's access: an unknown name is unknown to
    // everybody.
    let Some(organization) = policy.organizations.get(organization_id) else {
        return answer.because(Reason::UnknownEndpoint);
    };
    answer.revision = organization.revision;
    // A check of the organization itself names no project, so nothing is unknown about it, whatever
    // it requires. Below a known project everything may be unknown.
    if let Some(project) = lineage.get(1)
        && organization.require_projects
        && !organization.nodes.contains_key(project)
    {
        return answer.because(Reason::UnknownEndpoint);
    }

    // Step 2: cluster access. It has no groups.
    if !permits(&policy.cluster, &BTreeMap::new(), ip) {
        answer.node = Some("cluster".to_owned());
        return answer.because(Reason::OutsideCluster);
    }

    // Step 3: firewall. Only a denial ends the decision here; an allow rule lifts nothing that
    // follows.
    let first_match =
        organization.rules.iter().find(|rule| matches(rule, &organization.groups, ip, connection_type, now_ms));
    let first_match_name = first_match.map(|rule| format!("{organization_name}/rules/{}", rule.id));
    if let Some(Rule { action: Action::Deny, .. }) = first_match {
        answer.rule = first_match_name;
        return answer.because(Reason::DenyRule);
    }

    // Step 4: the organization's own access.
    if !permits(&organization.access, &organization.groups, ip) {
        answer.node = Some(organization_name.clone());
        return answer.because(Reason::OutsideOrganization);
    }

    // Step 5: effective access, of what the target has below the organization.
    if let Some((node, access)) = effective_access(organization, &lineage)
        && !permits(access, &organization.groups, ip)
    {
        answer.node = Some(node.to_owned());
        return answer.because(Reason::OutsideEndpoint);
    }

    // Nothing refused. The rule is named here only: a denial by a later step does not mention the
    // allow rule.
    match first_match_name {
        Some(rule) => {
            answer.rule = Some(rule);
            answer.because(Reason::AllowRule)
        }
        None => answer.because(Reason::DefaultAllow),
    }
}

/// The full names from the organization down to the target itself: one for an organization, four
/// for an endpoint.
pub(crate) fn lineage(target: &str) -> Result<Vec<String>, String> {
    const COLLECTIONS: [&str; 4] = ["organizations", "projects", "workspaces", "endpoints"];
    let segments: Vec<&str> = target.split('/').collect();
    if !segments.len().is_multiple_of(2) || segments.len() > 2 * COLLECTIONS.len() {
        return Err("it does not name an organization, project, workspace or endpoint".to_owned());
    }
    let mut names: Vec<String> = Vec::new();
    for (pair, collection) in segments.chunks(2).zip(COLLECTIONS) {
        if pair[0] != collection {
            return Err(format!("`{}` stands where `{collection}` belongs", pair[0]));
        }
        if !is_id(pair[1]) {
            return Err(format!("`{}` is not an id", pair[1]));
        }
        let own = format!("{collection}/{}", pair[1]);
        names.push(names.last().map_or(own.clone(), |parent| format!("{parent}/{own}")));
    }
    Ok(names)
}

/// §3.1: 1–63 of `a-z 0-9 -`, with a letter or digit at both ends.
pub(crate) fn is_id(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|c| plain(c) || c == '-')
        && text.starts_with(plain)
        && text.ends_with(plain)
}

/// The node whose own setting applies below the organization, and that setting; `None` where the
/// target has no such level.
///
/// * Target is the organization itself: no level, only the organization's own access counts.
/// * Target below an unknown project (`require_projects` is not set, or step 1 had refused):
///   nothing below the organization is known, so its nearest known ancestor is the organization,
///   whose own access step 4 has judged. A workspace or endpoint below that happens to have the id
///   of a known one elsewhere is still unknown.
/// * Unknown workspace or endpoint below a known project: the nearest known ancestor's effective
///   access.
/// * Target is a project or workspace: it is judged as an endpoint would be that stands there and
///   inherits.
/// * `AllowAll` on a workspace or endpoint ends the search too: it lifts the project's list, not
///   the organization's.
fn effective_access<'a>(organization: &'a Organization, lineage: &'a [String]) -> Option<(&'a str, &'a Access)> {
    let known: Vec<(&str, &Access)> =
        lineage.iter().skip(1).map_while(|name| Some((name.as_str(), organization.nodes.get(name)?))).collect();
    let (project, below) = known.split_first()?;
    assert!(*project.1 != Access::Inherit, "`{}` is a project and cannot inherit", project.0);
    let nearest = below.iter().rev().find(|(_, access)| **access != Access::Inherit);
    Some(*nearest.unwrap_or(project))
}

fn permits(access: &Access, groups: &BTreeMap<String, Vec<String>>, ip: Address) -> bool {
    match access {
        Access::Inherit => panic!("neither the cluster nor an organization can inherit"),
        Access::AllowAll => true,
        Access::AllowList(entries) => entries.iter().any(|entry| source_contains(entry, groups, ip)),
    }
}

fn matches(
    rule: &Rule,
    groups: &BTreeMap<String, Vec<String>>,
    ip: Address,
    connection_type: ConnectionType,
    now_ms: i64,
) -> bool {
    let expired = rule.expire_time_ms.is_some_and(|expire_time_ms| now_ms >= expire_time_ms);
    let applies = rule.connection_types.is_empty() || rule.connection_types.contains(&connection_type);
    !rule.disabled && !expired && applies && source_contains(&rule.source, groups, ip)
}

/// An empty group contains nothing; a group that does not exist cannot be named.
fn source_contains(source: &Source, groups: &BTreeMap<String, Vec<String>>, ip: Address) -> bool {
    let text_contains = |text: &String| parse_range(text).expect("a policy holds valid ranges only").contains(ip);
    match source {
        Source::Range(text) => text_contains(text),
        Source::Group(id) => groups.get(id).expect("a policy names existing groups only").iter().any(text_contains),
    }
}

impl Answer {
    fn because(self, reason: Reason) -> Self {
        Self { allow: reason.allows(), reason, message: reason.message(), ..self }
    }
}

impl Reason {
    pub(crate) const ALL: [Self; 7] = [
        Self::AllowRule,
        Self::DefaultAllow,
        Self::UnknownEndpoint,
        Self::OutsideCluster,
        Self::DenyRule,
        Self::OutsideOrganization,
        Self::OutsideEndpoint,
    ];

    pub(crate) fn allows(self) -> bool {
        matches!(self, Self::AllowRule | Self::DefaultAllow)
    }

    /// The API's enum value is `REASON_` + this.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AllowRule => "ALLOW_RULE",
            Self::DefaultAllow => "DEFAULT_ALLOW",
            Self::UnknownEndpoint => "UNKNOWN_ENDPOINT",
            Self::OutsideCluster => "OUTSIDE_CLUSTER",
            Self::DenyRule => "DENY_RULE",
            Self::OutsideOrganization => "OUTSIDE_ORGANIZATION",
            Self::OutsideEndpoint => "OUTSIDE_ENDPOINT",
        }
    }

    /// What the user is shown; empty on ALLOW.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::AllowRule | Self::DefaultAllow => "",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::OutsideCluster => "cluster_restricted",
            Self::DenyRule => "firewall_blocked",
            Self::OutsideOrganization => "organization_restricted",
            Self::OutsideEndpoint => "endpoint_restricted",
        }
    }
}

impl ConnectionType {
    pub(crate) const ALL: [Self; 2] = [Self::Shell, Self::Preview];
}

// Addresses and ranges, §2.1: behaviour -----------------------------------------------------------

/// The address that `text` means.
pub(crate) fn parse_address(text: &str) -> Result<Address, String> {
    match parse_written(text) {
        Some(Written::V4(bits)) => Ok(Address::V4(bits)),
        Some(Written::V6(bits)) => Ok(Address::from_v6_bits(bits)),
        None => Err(format!("`{text}` is not an IPv4 or IPv6 address")),
    }
}

/// The range that `text` means: `any`, an address, or CIDR notation.
pub(crate) fn parse_range(text: &str) -> Result<Range, String> {
    if text.eq_ignore_ascii_case("any") {
        return Ok(Range::Any);
    }
    let Some((address_text, len_text)) = text.split_once('/') else {
        return Ok(match parse_address(text)? {
            Address::V4(first) => Range::V4 { first, len: 32 },
            Address::V6(first) => Range::V6 { first, len: 128 },
        });
    };
    let written = parse_written(address_text).ok_or_else(|| format!("`{address_text}` is not an address"))?;
    let len_max = match written {
        Written::V4(_) => 32,
        Written::V6(_) => 128,
    };
    let len = parse_decimal(len_text, len_max)
        .ok_or_else(|| format!("`{len_text}` is not a prefix length from 0 to {len_max}"))?;

    // The prefix length counts in the notation that was written, so it is converted together with
    // the address.
    let range = match written {
        Written::V4(first) => Range::V4 { first, len },
        Written::V6(bits) => match (Address::from_v6_bits(bits), len.checked_sub(96)) {
            (Address::V6(first), _) => Range::V6 { first, len },
            (Address::V4(first), Some(len)) => Range::V4 { first, len },
            // Its host bits would be set as well (the last bit of `ffff` is bit 96), but masking
            // them off would offer an IPv6 range that contains no IPv4 address: not what was meant.
            (Address::V4(_), None) => {
                return Err(format!("`{text}` is an IPv4-mapped range, whose prefix length starts at 96"));
            }
        },
    };
    let (masked, address) = match range {
        Range::Any => (range, range),
        Range::V4 { first, len } => (Range::V4 { first: first & mask_v4(len), len }, Range::V4 { first, len: 32 }),
        Range::V6 { first, len } => (Range::V6 { first: first & mask_v6(len), len }, Range::V6 { first, len: 128 }),
    };
    if masked != range {
        return Err(format!("`{text}` has host bits set: write `{masked}` or `{address}`"));
    }
    Ok(range)
}

impl Address {
    /// The address of 128 bits: IPv4 where they are `::ffff:0:0/96`.
    pub(crate) fn from_v6_bits(bits: u128) -> Self {
        match u32::try_from(bits ^ MAPPED_FIRST) {
            Ok(v4) => Self::V4(v4),
            Err(_) => Self::V6(bits),
        }
    }
}

impl Range {
    /// Whether `address` is in the range. Families never mix, whatever the bits: `::/0` holds no
    /// IPv4 address.
    pub(crate) fn contains(self, address: Address) -> bool {
        match (self, address) {
            (Self::Any, _) => true,
            (Self::V4 { first, len }, Address::V4(ip)) => first <= ip && ip <= first | !mask_v4(len),
            (Self::V6 { first, len }, Address::V6(ip)) => first <= ip && ip <= first | !mask_v6(len),
            (Self::V4 { .. }, Address::V6(_)) | (Self::V6 { .. }, Address::V4(_)) => false,
        }
    }
}

/// Canonical: dotted decimal, or RFC 5952.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4(bits) => {
                let octets = bits.to_be_bytes().map(|octet| octet.to_string());
                write!(f, "{}", octets.join("."))
            }
            Self::V6(bits) => write_v6(f, &groups_of(bits)),
        }
    }
}

/// Canonical: `any`, a single address without prefix length, or CIDR notation.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Any => write!(f, "any"),
            Self::V4 { first, len: 32 } => Address::V4(first).fmt(f),
            Self::V4 { first, len } => write!(f, "{}/{len}", Address::V4(first)),
            Self::V6 { first, len: 128 } => Address::V6(first).fmt(f),
            Self::V6 { first, len } => write!(f, "{}/{len}", Address::V6(first)),
        }
    }
}

/// `::ffff:0:0`.
const MAPPED_FIRST: u128 = 0xffff_0000_0000;

/// The family as written, before mapped addresses become IPv4.
#[derive(Clone, Copy)]
enum Written {
    V4(u32),
    V6(u128),
}

fn parse_written(text: &str) -> Option<Written> {
    if text.contains(':') { parse_v6(text).map(Written::V6) } else { parse_v4(text).map(Written::V4) }
}

/// Four octets, nothing else.
fn parse_v4(text: &str) -> Option<u32> {
    let octets: Vec<&str> = text.split('.').collect();
    if octets.len() != 4 {
        return None;
    }
    octets.into_iter().try_fold(0, |bits, octet| Some((bits << 8) | parse_decimal(octet, 255)?))
}

/// A decimal number without sign, spaces or leading zeros.
fn parse_decimal(text: &str, max: u32) -> Option<u32> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(10)).collect::<Option<_>>()?;
    if digits.is_empty() || digits.len() > 3 || (digits.len() > 1 && digits[0] == 0) {
        return None;
    }
    Some(digits.into_iter().fold(0, |number, digit| number * 10 + digit)).filter(|number| *number <= max)
}

/// Eight groups of 16 bits, of which one run of *at least one* zero group may be `::`, and the last
/// two may be written as IPv4 (RFC 4291, 2.2).
fn parse_v6(text: &str) -> Option<u128> {
    let halves: Vec<&str> = text.split("::").collect();
    let groups = match halves[..] {
        [whole] => parse_groups(whole, true)?,
        [head, tail] => {
            let head = parse_half(head, false)?;
            let tail = parse_half(tail, true)?;
            let zeros = 8_usize.checked_sub(head.len() + tail.len()).filter(|zeros| *zeros >= 1)?;
            [head, vec![0; zeros], tail].concat()
        }
        _ => return None,
    };
    if groups.len() != 8 {
        return None;
    }
    Some(groups.into_iter().fold(0, |bits, group| (bits << 16) | u128::from(group)))
}

/// What stands on one side of `::`, which may be nothing.
fn parse_half(text: &str, at_end: bool) -> Option<Vec<u16>> {
    if text.is_empty() { Some(Vec::new()) } else { parse_groups(text, at_end) }
}

fn parse_groups(text: &str, at_end: bool) -> Option<Vec<u16>> {
    let pieces: Vec<&str> = text.split(':').collect();
    let mut groups = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        if at_end && index + 1 == pieces.len() && piece.contains('.') {
            let [a, b, c, d] = parse_v4(piece)?.to_be_bytes();
            groups.extend([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]);
        } else if (1..=4).contains(&piece.len()) && piece.chars().all(|c| c.is_ascii_hexdigit()) {
            groups.push(u16::from_str_radix(piece, 16).ok()?);
        } else {
            return None;
        }
    }
    Some(groups)
}

/// The 16-bit groups of an IPv6 address.
pub(crate) fn groups_of(bits: u128) -> [u16; 8] {
    let bytes = bits.to_be_bytes();
    std::array::from_fn(|index| u16::from_be_bytes([bytes[2 * index], bytes[2 * index + 1]]))
}

/// RFC 5952: lower case, no leading zeros, the first of the longest runs of two or more zero groups
/// as `::`. IPv4 dots are for mapped addresses (its section 5), and those are IPv4 here.
fn write_v6(f: &mut fmt::Formatter<'_>, groups: &[u16; 8]) -> fmt::Result {
    let hex = |groups: &[u16]| groups.iter().map(|group| format!("{group:x}")).collect::<Vec<_>>().join(":");
    for run in (2..=8).rev() {
        for start in 0..=8 - run {
            if groups[start..start + run].iter().all(|group| *group == 0) {
                return write!(f, "{}::{}", hex(&groups[..start]), hex(&groups[start + run..]));
            }
        }
    }
    write!(f, "{}", hex(groups))
}

/// The `len` leading bits.
pub(crate) fn mask_v4(len: u32) -> u32 {
    u32::MAX.checked_shl(32 - len).unwrap_or(0)
}

/// The `len` leading bits.
pub(crate) fn mask_v6(len: u32) -> u128 {
    u128::MAX.checked_shl(128 - len).unwrap_or(0)
}

// Tests: the contract's own examples, pinned ------------------------------------------------------

mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const ACME: &str = "organizations/acme";
    const WEB: &str = "organizations/acme/projects/web";
    const MAIN: &str = "organizations/acme/projects/web/workspaces/main";
    const PORT: &str = "organizations/acme/projects/web/workspaces/main/endpoints/p3000";
    const NOW: i64 = 1_700_000_000_000;

    /// What is typed → its canonical form, or a refusal.
    const RANGES: &[(&str, Option<&str>)] = &[
        // IPv4
        ("198.51.100.42", Some("198.51.100.42")),
        ("198.51.100.42/32", Some("198.51.100.42")),
        ("10.0.0.0/8", Some("10.0.0.0/8")),
        ("10.0.0.0", Some("10.0.0.0")),
        ("0.0.0.0/0", Some("0.0.0.0/0")),
        ("0.0.0.0", Some("0.0.0.0")),
        ("0.0.0.0/32", Some("0.0.0.0")),
        ("255.255.255.255", Some("255.255.255.255")),
        ("255.255.255.254/31", Some("255.255.255.254/31")),
        ("128.0.0.0/1", Some("128.0.0.0/1")),
        ("10.0.0.5/8", None),
        ("255.255.255.255/31", None),
        ("0.0.0.1/0", None),
        ("10.0.0.0/33", None),
        ("10.0.0.0/", None),
        ("10.0.0.0/-1", None),
        ("10.0.0.0/+8", None),
        ("10.0.0.0/08", None),
        ("10.0.0.0/00", None),
        ("10.0.0.0/ 8", None),
        ("10.0.0.0 /8", None),
        ("10.0.0.0/8/8", None),
        ("10.0.0.0/255.0.0.0", None),
        ("10.0.0.0/4294967304", None),
        ("10.0.0.0/8x", None),
        ("10/8", None),
        ("10.0.0/24", None),
        ("10.0.0.0.0", None),
        ("10.0.0.", None),
        (".10.0.0", None),
        ("10..0.1", None),
        ("010.0.0.0", None),
        ("10.0.0.00", None),
        ("10.0.0.256", None),
        ("10.0.0.1000", None),
        ("10.0.0.0x1", None),
        ("10.0.0.+1", None),
        ("10.0.0.-1", None),
        ("10.0.0.1٣", None),
        ("10.0.0.1:80", None),
        ("10.0.0.1 ", None),
        (" 10.0.0.1", None),
        ("10.0.0.1\n", None),
        ("10.0.0.1-10.0.0.9", None),
        ("10.0.0.*", None),
        ("167772161", None),
        ("", None),
        ("/", None),
        ("/8", None),
        // any
        ("any", Some("any")),
        ("ANY", Some("any")),
        ("any/0", None),
        ("any ", None),
        ("*", None),
        ("all", None),
        // IPv6
        ("2001:DB8::1", Some("2001:db8::1")),
        ("2001:0db8:0000:0000:0000:0000:0000:0001", Some("2001:db8::1")),
        ("2001:db8::/32", Some("2001:db8::/32")),
        ("2001:db8:0:0:1:0:0:1", Some("2001:db8::1:0:0:1")),
        ("2001:0:0:1:0:0:0:1", Some("2001:0:0:1::1")),
        ("2001:db8::1:1:1:1:1", Some("2001:db8:0:1:1:1:1:1")),
        ("2001:db8:1:1:1:1:1::", Some("2001:db8:1:1:1:1:1:0")),
        ("::2:3:4:5:6:7:8", Some("0:2:3:4:5:6:7:8")),
        ("::", Some("::")),
        ("::/128", Some("::")),
        ("::/0", Some("::/0")),
        ("::1", Some("::1")),
        ("1::", Some("1::")),
        ("8000::/1", Some("8000::/1")),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")),
        ("::1/0", None),
        ("2001:db8::1/32", None),
        ("::/129", None),
        ("::/0128", None),
        ("1:2:3:4:5:6:7", None),
        ("1:2:3:4:5:6:7:8:9", None),
        ("1:2:3:4::5:6:7:8", None),
        ("1::2::3", None),
        (":::", None),
        ("1:::2", None),
        (":1::2", None),
        ("1::2:", None),
        (":", None),
        (":1:2:3:4:5:6:7", None),
        ("12345::", None),
        ("g::", None),
        ("+1::", None),
        ("fe80::1%eth0", None),
        ("fe80::1%1", None),
        ("[::1]", None),
        ("[::1]:80", None),
        // Mapped: is IPv4
        ("::ffff:198.51.100.42", Some("198.51.100.42")),
        ("::ffff:c633:642a", Some("198.51.100.42")),
        ("::FFFF:C633:642A", Some("198.51.100.42")),
        ("0:0:0:0:0:ffff:198.51.100.42", Some("198.51.100.42")),
        ("0000:0000:0000:0000:0000:ffff:c633:642a", Some("198.51.100.42")),
        ("::ffff:198.51.100.42/128", Some("198.51.100.42")),
        ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
        ("::ffff:a00:0/104", Some("10.0.0.0/8")),
        ("::ffff:0:0/96", Some("0.0.0.0/0")),
        ("::ffff:0.0.0.0/96", Some("0.0.0.0/0")),
        ("::ffff:128.0.0.0/97", Some("128.0.0.0/1")),
        ("::ffff:0:0/95", None),
        ("::ffff:0:0/80", None),
        ("::ffff:0:0/0", None),
        ("::ffff:10.0.0.0/8", None),
        ("::ffff:10.0.0.5/104", None),
        ("::ffff:10.0.0.0/129", None),
        ("::ffff:010.0.0.0", None),
        ("::ffff:10.0.0", None),
        ("::ffff:10.0.0.0.0", None),
        ("::ffff:10.0.0.0:1", None),
        ("10.0.0.0::", None),
        ("::10.0.0.0:ffff", None),
        ("0:0:0:0:0:0:ffff:10.0.0.0", None),
        // Around the mapped block, and what only looks like IPv4: plain IPv6
        ("::fffe:0:0/95", Some("::fffe:0:0/95")),
        ("::fffe:ffff:ffff", Some("::fffe:ffff:ffff")),
        ("::1:0:0:0", Some("::1:0:0:0")),
        ("::/80", Some("::/80")),
        ("::/96", Some("::/96")),
        ("::198.51.100.42", Some("::c633:642a")),
        ("64:ff9b::198.51.100.42", Some("64:ff9b::c633:642a")),
        ("64:ff9b::/96", Some("64:ff9b::/96")),
        ("2002:c633:642a::/48", Some("2002:c633:642a::/48")),
        ("::ffff:0:198.51.100.42", Some("::ffff:0:c633:642a")),
        ("1::ffff:198.51.100.42", Some("1::ffff:c633:642a")),
    ];

    // Hazard: a parser that is lenient where another part of the system is strict lets an address
    // mean two things.
    #[test]
    fn ranges_parse_to_their_canonical_form_or_not_at_all() {
        for &(text, canonical) in RANGES {
            let parsed = parse_range(text);
            assert_eq!(parsed.as_ref().ok().map(ToString::to_string).as_deref(), canonical, "`{text}`");
            if let Ok(range) = parsed {
                assert_eq!(parse_range(&range.to_string()), Ok(range), "`{text}` is not stable");
            }
            // An address is a range of one, written without prefix length; nothing else is.
            let address = parse_address(text).ok().map(|address| address.to_string());
            let single = canonical.filter(|canonical| !text.contains('/') && *canonical != "any");
            assert_eq!(address.as_deref(), single, "`{text}` as an address");
        }
    }

    #[test]
    fn host_bits_are_refused_with_both_meanings() {
        for (text, range, address) in [
            ("10.0.0.5/8", "`10.0.0.0/8`", "`10.0.0.5`"),
            ("::ffff:10.0.0.5/104", "`10.0.0.0/8`", "`10.0.0.5`"),
            ("0.0.0.1/0", "`0.0.0.0/0`", "`0.0.0.1`"),
            ("2001:DB8::5/32", "`2001:db8::/32`", "`2001:db8::5`"),
            ("::1/0", "`::/0`", "`::1`"),
        ] {
            let why = parse_range(text).unwrap_err();
            assert!(why.contains(range) && why.contains(address), "{why}");
        }
        // A mapped range that is too short is not told to use an IPv6 range, which would match
        // nothing that it meant.
        assert!(!parse_range("::ffff:0:0/95").unwrap_err().contains("::fffe:0:0/95"));
    }

    // Hazard: an IPv6 range that covers the mapped block by its bits lets IPv4 clients in.
    #[test]
    fn families_never_mix() {
        for (range, inside, outside) in [
            ("any", &["0.0.0.0", "255.255.255.255", "::", "::ffff:0:0", "ffff::"][..], &[][..]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255", "::ffff:a00:1"], &["::", "::1", "64:ff9b::a00:1"]),
            ("::/0", &["::", "::fffe:ffff:ffff", "::1:0:0:0", "ffff::"], &["10.0.0.1", "::ffff:10.0.0.1"]),
            ("::/80", &["::", "::fffe:ffff:ffff"], &["::1:0:0:0", "::ffff:0:0", "0.0.0.0"]),
            ("::fffe:0:0/95", &["::fffe:0:0", "::fffe:ffff:ffff"], &["::ffff:0:0", "::ffff:ffff:ffff", "1.2.3.4"]),
            ("::ffff:0:0/96", &["0.0.0.0", "::ffff:1.2.3.4"], &["::", "::fffe:ffff:ffff", "::1:0:0:0"]),
            ("::/96", &["::10.0.0.1", "::"], &["10.0.0.1", "::1:0:0"]),
            ("10.0.5.42/31", &["10.0.5.42", "10.0.5.43"], &["10.0.5.41", "10.0.5.44"]),
            ("10.0.5.42", &["10.0.5.42", "::ffff:a00:52a"], &["10.0.5.41", "10.0.5.43", "::a00:52a"]),
            ("2001:db8::/33", &["2001:db8:7fff::"], &["2001:db8:8000::", "2001:db7:ffff::"]),
        ] {
            let parsed = parse_range(range).unwrap();
            for ip in inside {
                assert!(parsed.contains(parse_address(ip).unwrap()), "`{range}` contains `{ip}`");
            }
            for ip in outside {
                assert!(!parsed.contains(parse_address(ip).unwrap()), "`{range}` does not contain `{ip}`");
            }
        }
        assert_ne!(parse_range("any"), parse_range("::/0"));
        assert_ne!(parse_range("any"), parse_range("0.0.0.0/0"));
    }

    #[test]
    fn only_nodes_below_the_cluster_can_be_checked() {
        assert_eq!(lineage(PORT).unwrap(), [ACME, WEB, MAIN, PORT]);
        assert_eq!(lineage(ACME).unwrap(), [ACME]);
        for bad in [
            "",
            "/",
            "cluster",
            "organizations",
            "organizations/",
            "organizations/Acme",
            "organizations/-a",
            "organizations/a-",
            "organizations/a_b",
            "organizations/acme/",
            "/organizations/acme",
            "organizations/acme/projects",
            "organizations/acme/workspaces/main",
            "organizations/acme/rules/r1",
            "projects/web",
            "organizations/acme/projects/web/workspaces/main/endpoints/p/endpoints/q",
        ] {
            assert!(lineage(bad).is_err(), "`{bad}`");
        }
        assert!(is_id(&"a".repeat(63)) && is_id("0") && !is_id(&"a".repeat(64)));
    }

    #[test]
    fn the_first_matching_rule_wins() {
        let allow_first = firewall([("a", Action::Allow, "10.0.0.0/8"), ("b", Action::Deny, "10.0.5.0/24")]);
        assert_eq!(ask(&allow_first, "10.0.5.1"), (Reason::AllowRule, Some(format!("{ACME}/rules/a")), None));
        assert_eq!(ask(&allow_first, "11.0.0.1"), (Reason::DefaultAllow, None, None));

        let deny_first = firewall([("b", Action::Deny, "10.0.5.0/24"), ("a", Action::Allow, "10.0.0.0/8")]);
        assert_eq!(ask(&deny_first, "10.0.5.255"), (Reason::DenyRule, Some(format!("{ACME}/rules/b")), None));
        assert_eq!(ask(&deny_first, "10.0.6.0"), (Reason::AllowRule, Some(format!("{ACME}/rules/a")), None));

        let closed = firewall([
            ("a", Action::Allow, "10.0.0.0/8"),
            ("b", Action::Deny, "10.0.5.0/24"),
            ("c", Action::Deny, "0.0.0.0/0"),
        ]);
        assert_eq!(ask(&closed, "::ffff:10.0.5.1").0, Reason::AllowRule);
        assert_eq!(ask(&closed, "::ffff:c633:642a"), (Reason::DenyRule, Some(format!("{ACME}/rules/c")), None));
        assert_eq!(ask(&closed, "2001:db8::1").0, Reason::DefaultAllow, "0.0.0.0/0 is IPv4 only");
        assert_eq!(ask(&firewall([("d", Action::Deny, "any")]), "2001:db8::1").0, Reason::DenyRule);
        assert_eq!(ask(&firewall([("d", Action::Deny, "::/0")]), "::ffff:1.2.3.4").0, Reason::DefaultAllow);
        assert_eq!(ask(&firewall([]), "10.0.0.1").0, Reason::DefaultAllow);
    }

    #[test]
    fn a_rule_that_does_not_apply_is_passed_over() {
        let mut policy = firewall([("d", Action::Deny, "any"), ("a", Action::Allow, "any")]);
        let reason = |policy: &Policy, connection_type, now_ms| {
            decide(policy, parse_address("10.0.0.1").unwrap(), connection_type, ACME, now_ms).reason
        };
        rule(&mut policy, 0).connection_types = vec![ConnectionType::Shell];
        assert_eq!(reason(&policy, ConnectionType::Shell, NOW), Reason::DenyRule);
        assert_eq!(reason(&policy, ConnectionType::Preview, NOW), Reason::AllowRule);

        rule(&mut policy, 0).expire_time_ms = Some(NOW);
        assert_eq!(reason(&policy, ConnectionType::Shell, NOW - 1), Reason::DenyRule);
        assert_eq!(reason(&policy, ConnectionType::Shell, NOW), Reason::AllowRule, "expired at its expire time");
        assert_eq!(reason(&policy, ConnectionType::Shell, NOW + 1), Reason::AllowRule);

        rule(&mut policy, 0).disabled = true;
        assert_eq!(reason(&policy, ConnectionType::Shell, NOW - 1), Reason::AllowRule);
    }

    #[test]
    fn a_group_stands_for_its_ranges() {
        let mut policy = firewall([("d", Action::Deny, "any")]);
        let organization = organization(&mut policy);
        organization.groups.insert("offices".to_owned(), vec!["::ffff:10.0.0.0/104".to_owned(), "::1".to_owned()]);
        organization.groups.insert("nobody".to_owned(), Vec::new());
        organization.rules[0].source = Source::Group("offices".to_owned());
        assert_eq!(ask(&policy, "10.1.2.3").0, Reason::DenyRule);
        assert_eq!(ask(&policy, "::1").0, Reason::DenyRule);
        assert_eq!(ask(&policy, "11.0.0.0").0, Reason::DefaultAllow);
        rule(&mut policy, 0).source = Source::Group("nobody".to_owned());
        assert_eq!(ask(&policy, "10.1.2.3").0, Reason::DefaultAllow);
        self::organization(&mut policy).access = Access::AllowList(vec![Source::Group("nobody".to_owned())]);
        assert_eq!(ask(&policy, "10.1.2.3").0, Reason::OutsideOrganization);
    }

    // Hazard: two steps that both refuse, answered in another order than promised.
    #[test]
    fn the_first_step_that_refuses_gives_the_reason() {
        let mut policy = firewall([("d", Action::Deny, "any")]);
        policy.cluster = Access::AllowList(Vec::new());
        let organization = organization(&mut policy);
        organization.access = Access::AllowList(Vec::new());
        organization.require_projects = true;

        let steps: [(&str, Reason, Option<&str>); 5] = [
            ("unknown_endpoint", Reason::UnknownEndpoint, None),
            ("cluster_restricted", Reason::OutsideCluster, Some("cluster")),
            ("firewall_blocked", Reason::DenyRule, None),
            ("organization_restricted", Reason::OutsideOrganization, Some(ACME)),
            ("endpoint_restricted", Reason::OutsideEndpoint, Some(WEB)),
        ];
        for (lifted, (message, reason, node)) in steps.into_iter().enumerate() {
            let organization = self::organization(&mut policy);
            match lifted {
                0 => {}
                1 => drop(organization.nodes.insert(WEB.to_owned(), Access::AllowList(Vec::new()))),
                2 => policy.cluster = list(["10.0.0.0/8"]),
                3 => organization.rules[0].action = Action::Allow,
                _ => organization.access = Access::AllowAll,
            }
            assert_eq!(
                decide(&policy, parse_address("10.0.0.1").unwrap(), ConnectionType::Shell, PORT, NOW),
                Answer {
                    allow: false,
                    reason,
                    message,
                    rule: (reason == Reason::DenyRule).then(|| format!("{ACME}/rules/d")),
                    node: node.map(str::to_owned),
                    revision: 7,
                    cluster_revision: 3,
                }
            );
        }
        self::organization(&mut policy).nodes.insert(WEB.to_owned(), list(["10.0.0.1"]));
        assert_eq!(
            decide(&policy, parse_address("10.0.0.1").unwrap(), ConnectionType::Shell, PORT, NOW),
            Answer {
                allow: true,
                reason: Reason::AllowRule,
                message: "",
                rule: Some(format!("{ACME}/rules/d")),
                node: None,
                revision: 7,
                cluster_revision: 3,
            }
        );
    }

    #[test]
    fn an_unknown_organization_is_unknown_before_anything_else() {
        let mut policy = firewall([]);
        policy.cluster = Access::AllowList(Vec::new());
        for name in ["organizations/acme-2", "organizations/acm/projects/web"] {
            let answer = decide(&policy, Address::V4(0), ConnectionType::Shell, name, NOW);
            assert_eq!((answer.reason, answer.node, answer.revision), (Reason::UnknownEndpoint, None, 0));
            assert_eq!(answer.cluster_revision, 3);
        }
    }

    #[test]
    fn effective_access_is_that_of_the_nearest_node_that_does_not_inherit() {
        let mut policy = firewall([]);
        self::organization(&mut policy).nodes = BTreeMap::from([
            (WEB.to_owned(), list(["10.0.0.0/8"])),
            (MAIN.to_owned(), Access::Inherit),
            (PORT.to_owned(), list(["11.0.0.0/8"])),
            (format!("{MAIN}/endpoints/open"), Access::AllowAll),
            (format!("{MAIN}/endpoints/plain"), Access::Inherit),
            (format!("{WEB}/workspaces/closed"), Access::AllowList(Vec::new())),
            (format!("{WEB}/workspaces/closed/endpoints/plain"), Access::Inherit),
            (format!("{WEB}/workspaces/closed/endpoints/own"), list(["12.0.0.0/8"])),
        ]);
        let refused_by = |policy: &Policy, ip: &str, target: &str| {
            let answer = decide(policy, parse_address(ip).unwrap(), ConnectionType::Shell, target, NOW);
            match answer.reason {
                Reason::DefaultAllow => None,
                Reason::OutsideEndpoint => answer.node,
                other => panic!("{other:?}"),
            }
        };
        let closed = format!("{WEB}/workspaces/closed");
        let own = format!("{closed}/endpoints/own");
        for (ip, target, node) in [
            ("12.0.0.0", ACME.to_owned(), None),
            ("12.0.0.0", WEB.to_owned(), Some(WEB)),
            ("10.0.0.0", WEB.to_owned(), None),
            ("12.0.0.0", MAIN.to_owned(), Some(WEB)),
            ("12.0.0.0", format!("{WEB}/workspaces/unknown"), Some(WEB)),
            ("12.0.0.0", format!("{WEB}/workspaces/unknown/endpoints/p3000"), Some(WEB)),
            ("11.0.0.0", format!("{WEB}/workspaces/unknown/endpoints/p3000"), Some(WEB)),
            ("11.0.0.0", PORT.to_owned(), None),
            ("10.0.0.0", PORT.to_owned(), Some(PORT)),
            ("12.0.0.0", format!("{MAIN}/endpoints/open"), None),
            ("12.0.0.0", format!("{MAIN}/endpoints/plain"), Some(WEB)),
            ("12.0.0.0", format!("{MAIN}/endpoints/unknown"), Some(WEB)),
            ("10.0.0.0", format!("{MAIN}/endpoints/unknown"), None),
            ("10.0.0.0", format!("{closed}/endpoints/plain"), Some(closed.as_str())),
            ("10.0.0.0", format!("{closed}/endpoints/unknown"), Some(closed.as_str())),
            // Three levels with settings of their own: the lowest applies, alone.
            ("12.0.0.0", own.clone(), None),
            ("10.0.0.0", own.clone(), Some(own.as_str())),
            // The project is unknown and need not be known: only the organization counts.
            ("12.0.0.0", format!("{ACME}/projects/unknown"), None),
            ("12.0.0.0", format!("{ACME}/projects/unknown/workspaces/closed/endpoints/plain"), None),
        ] {
            assert_eq!(refused_by(&policy, ip, &target).as_deref(), node, "`{ip}` at `{target}`");
        }
        // What the organization refuses, no `AllowAll` below it lifts.
        self::organization(&mut policy).access = list(["10.0.0.0/8"]);
        let open = format!("{MAIN}/endpoints/open");
        let answer = decide(&policy, parse_address("12.0.0.0").unwrap(), ConnectionType::Shell, &open, NOW);
        assert_eq!((answer.reason, answer.node.as_deref()), (Reason::OutsideOrganization, Some(ACME)));
    }

    #[test]
    fn required_projects_concern_the_project_only() {
        let mut policy = firewall([]);
        self::organization(&mut policy).require_projects = true;
        let reason =
            |policy: &Policy, target: &str| decide(policy, Address::V4(0), ConnectionType::Preview, target, NOW).reason;
        assert_eq!(reason(&policy, ACME), Reason::DefaultAllow);
        for target in [WEB, MAIN, PORT] {
            assert_eq!(reason(&policy, target), Reason::UnknownEndpoint);
        }
        self::organization(&mut policy).nodes.insert(WEB.to_owned(), Access::AllowAll);
        for target in [WEB, MAIN, PORT] {
            assert_eq!(reason(&policy, target), Reason::DefaultAllow);
        }
        assert_eq!(reason(&policy, &format!("{ACME}/projects/web-2")), Reason::UnknownEndpoint);
    }

    #[test]
    fn reasons_are_named_as_in_the_contract() {
        for reason in Reason::ALL {
            assert_eq!(reason.allows(), reason.message().is_empty());
            assert_eq!(reason.name().to_lowercase().replace('_', ""), format!("{reason:?}").to_lowercase());
        }
    }

    proptest! {
        // `std::net` is a third opinion on what an address is, and on RFC 5952.
        #[test]
        fn std_agrees_about_v4(text in "[0-9]{1,3}(\\.[0-9]{1,3}){2,4}") {
            same_as_std(&text)?;
        }

        #[test]
        fn std_agrees_about_v6(
            head in "(:|::|[0-9a-fA-F]{1,5}:|0:|::ffff:|0:0:0:0:0:ffff:){0,9}",
            tail in "[0-9a-fA-F]{0,4}|10\\.0\\.0\\.[0-9]{1,3}",
        ) {
            same_as_std(&format!("{head}{tail}"))?;
        }

        #[test]
        fn std_agrees_about_eight_pieces(
            mut pieces in prop::collection::vec("[0-9a-f]{1,4}|0|0|0", 6..9),
            gap in 0_usize..9,
        ) {
            if let Some(piece) = pieces.get_mut(gap) {
                piece.clear();
            }
            same_as_std(&pieces.join(":"))?;
            same_as_std(&format!("{}.1.2.3", pieces.join(":")))?;
        }

        #[test]
        fn std_agrees_about_canonical_v6(
            groups in prop::array::uniform8(prop_oneof![Just(0_u16), Just(1), any::<u16>()]),
        ) {
            let std = Ipv6Addr::from(groups);
            let ours = Address::from_v6_bits(std.to_bits());
            prop_assert_eq!(ours.to_string(), std.to_canonical().to_string());
        }

        #[test]
        fn v6_ranges_hold_what_shares_their_prefix(
            first: u128,
            len in 0_u32..=128,
            flip in 0_u32..128,
        ) {
            let range = Range::V6 { first: first & mask_v6(len), len };
            let other = Address::V6(first ^ (1 << (127 - flip)));
            prop_assert_eq!(parse_range(&range.to_string()), Ok(range));
            prop_assert_eq!(range.contains(other), flip >= len);
        }

        #[test]
        fn v4_ranges_hold_what_shares_their_prefix(
            first: u32,
            len in 0_u32..=32,
            flip in 0_u32..32,
        ) {
            let range = Range::V4 { first: first & mask_v4(len), len };
            let other = Address::V4(first ^ (1 << (31 - flip)));
            prop_assert_eq!(parse_range(&range.to_string()), Ok(range));
            prop_assert_eq!(range.contains(other), flip >= len);
        }
    }

    fn same_as_std(text: &str) -> Result<(), TestCaseError> {
        let std = text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical().to_string());
        prop_assert_eq!(parse_address(text).ok().map(|ip| ip.to_string()), std, "`{}`", text);
        Ok(())
    }

    /// One organization, `acme`, with these rules and nothing else.
    fn firewall<const N: usize>(rules: [(&str, Action, &str); N]) -> Policy {
        let rules = rules.map(|(id, action, range)| Rule {
            id: id.to_owned(),
            action,
            source: Source::Range(range.to_owned()),
            connection_types: Vec::new(),
            disabled: false,
            expire_time_ms: None,
        });
        let acme = Organization {
            revision: 7,
            require_projects: false,
            access: Access::AllowAll,
            rules: Vec::from(rules),
            groups: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        Policy {
            cluster: Access::AllowAll,
            cluster_revision: 3,
            organizations: BTreeMap::from([("acme".to_owned(), acme)]),
        }
    }

    fn organization(policy: &mut Policy) -> &mut Organization {
        policy.organizations.get_mut("acme").unwrap()
    }

    fn rule(policy: &mut Policy, index: usize) -> &mut Rule {
        &mut organization(policy).rules[index]
    }

    fn list<const N: usize>(ranges: [&str; N]) -> Access {
        Access::AllowList(ranges.iter().map(|range| Source::Range((*range).to_owned())).collect())
    }

    /// Reason, rule and node of a check of the organization itself.
    fn ask(policy: &Policy, ip: &str) -> (Reason, Option<String>, Option<String>) {
        let answer = decide(policy, parse_address(ip).unwrap(), ConnectionType::Shell, ACME, NOW);
        (answer.reason, answer.rule, answer.node)
    }
}
