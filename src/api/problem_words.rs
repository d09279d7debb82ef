//! Problems in words.
//!
//! Invariant: a message is a sentence that stands alone: what is wrong, from which moment on where that is later, and
//! after a colon what to do. The problem itself names the resource.
//! Not here: codes and severities (`problems`).

use crate::policy::name::{CLUSTER, Id, Name};
use crate::policy::problems::{Code, Problem, RANGES_MAX, RELATED_MAX, Resource};
use crate::policy::time::Timestamp;

/// The name of a resource of an organization, or of the cluster.
pub(super) fn name(organization: Option<&Id>, resource: &Resource) -> String {
    let organization = organization.map(|id| Name::organization(id).to_string()).unwrap_or_default();
    match resource {
        Resource::Cluster => CLUSTER.to_owned(),
        Resource::Organization => organization,
        Resource::Node(key) => format!("{organization}/{key}"),
        Resource::Rule(id) => format!("{organization}/rules/{id}"),
        Resource::Group(id) => format!("{organization}/addressGroups/{id}"),
        Resource::Test(id) => format!("{organization}/policyTests/{id}"),
    }
}

/// What is wrong and what to do, in a sentence.
pub(super) fn message(organization: Option<&Id>, problem: &Problem) -> String {
    let related = shown_names(organization, &problem.related);
    match problem.code {
        Code::LocksEveryoneOut
        | Code::GuardedAddressLockedOut
        | Code::FailingTest
        | Code::OpenToInternet
        | Code::Ipv4OnlyCatchAll
        | Code::UnreachableEntry
        | Code::TranslatedAddress => message_of_moment(problem, &related),
        Code::NoAddresses => "the access permits nobody: add ranges or an address group".to_owned(),
        Code::ShadowedRule => {
            let cover = if problem.related.len() == 1 { "covers" } else { "cover" };
            format!("the rule never wins, because {related} {cover} all of it before: move it up, or delete it")
        }
        Code::ExceedsOrganization => {
            let (ranges, have) = (shown_ranges(problem), if problem.ranges.len() == 1 { "has" } else { "have" });
            format!(
                "the access lists {ranges}, which {have} no effect: permit them in the organization, or take them out"
            )
        }
        Code::AllowsAll => "the access allows a whole address family: list the ranges that are meant".to_owned(),
        Code::EmptyGroup => format!("the address group {related} has no ranges and stands for nobody: add some"),
        Code::RedundantRule => "the rule alters no decision: delete it, unless it documents something".to_owned(),
        Code::ExpiredRule => "the rule has expired and matches nothing: delete it, or extend its time".to_owned(),
        Code::UnusedRule => {
            let since = problem.since.map(Timestamp::seconds).unwrap_or_default();
            let since = jiff::Timestamp::from_second(since).map(|time| time.to_string()).unwrap_or_default();
            format!("the rule has not matched since {since}: delete it if nobody needs it")
        }
        Code::UnusedGroup => "no rule and no access names the address group: delete it if nobody needs it".to_owned(),
        Code::PartlyShadowedRule => {
            format!("rules before this one always decide for {}: the rule has no effect there", shown_ranges(problem))
        }
    }
}

/// The message of a problem that can begin at a later moment, when rules have expired.
fn message_of_moment(problem: &Problem, related: &str) -> String {
    let types = match problem.connection_types.as_slice() {
        [one] => format!(" for {one} connections"),
        _ => String::new(),
    };
    let ranges = shown_ranges(problem);
    let later = problem.from.map(|from| format!("from {from} on"));
    let (begin, extend) = match &later {
        Some(later) => (format!("{later}, "), ", or extend the rules that expire then"),
        None => (String::new(), ""),
    };
    let unregistered = if problem.unregistered { ", at projects that are not registered too" } else { "" };
    match problem.code {
        Code::GuardedAddressLockedOut => format!(
            "{begin}the guarded address {ranges} loses what it is allowed now{types}: extend the rules that expire then, \
             or take it out of the guarded addresses"
        ),
        Code::FailingTest if later.is_some() => format!(
            "{begin}the policy decides otherwise than the test expects: extend the rules that expire then, or give the \
             test an end time"
        ),
        Code::FailingTest => {
            "the policy decides otherwise than the test expects: correct the policy, or delete the test".to_owned()
        }
        Code::OpenToInternet => format!(
            "{begin}every address of a whole family gets in{types}{unregistered}: restrict the access{extend}, unless everybody is meant"
        ),
        Code::Ipv4OnlyCatchAll => format!(
            "{begin}the rule leaves {ranges} open{types}, while it denies all of the other address family: give it the \
             range `any`{extend}"
        ),
        Code::UnreachableEntry => {
            let entry = if related.is_empty() { &ranges } else { related };
            format!("{begin}the entry {entry} lets nobody in: the firewall denies all of it")
        }
        Code::TranslatedAddress => format!(
            "{begin}the rule denies IPv4 addresses that still get in as IPv6 addresses of {ranges}{types}: deny these too, \
             unless no NAT64 or 6to4 leads to you"
        ),
        _ => format!(
            "{begin}nobody can connect{types}, because cluster, firewall and organization together permit no address: \
             allow some at each{extend}"
        ),
    }
}

/// The first range, and how many more there are.
fn shown_ranges(problem: &Problem) -> String {
    match &*problem.ranges {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first, _] => format!("`{first}` and 1 more range"),
        // A problem has no more ranges than these: there may be many more.
        [first, rest @ ..] if problem.ranges.len() >= RANGES_MAX => {
            format!("`{first}` and at least {} more ranges", rest.len())
        }
        [first, rest @ ..] => format!("`{first}` and {} more ranges", rest.len()),
    }
}

/// The first three names, and how many more there are.
fn shown_names(organization: Option<&Id>, resources: &[Resource]) -> String {
    let names: Vec<String> =
        resources.iter().take(3).map(|resource| format!("`{}`", name(organization, resource))).collect();
    match (names.split_last(), resources.len() - names.len()) {
        (None, _) => String::new(),
        (Some((last, [])), 0) => last.clone(),
        (Some((last, before)), 0) => format!("{} and {last}", before.join(", ")),
        (Some(_), more) if resources.len() >= RELATED_MAX => {
            format!("{} and at least {more} more", names.join(", "))
        }
        (Some(_), more) => format!("{} and {more} more", names.join(", ")),
    }
}
