//! What a change brings about besides what it alters: a firewall that denies nothing any more, projects that are required.
//!
//! Invariant: a change that was made is never told as failed because one of these questions was not answered: then nothing
//! is said.
//! Not here: what a change alters (`comparison`), what single rules and nodes cause (`rules::effects`, `nodes::effects`).

use std::collections::{HashMap, HashSet};

use portcullis_client::{Client, answer};

use super::difference::Told;
use super::names::{organization_of, split_node};
use super::pages::{self, PAGE_SIZE};
use super::record;
use super::settings;
use super::table::clean;
use portcullis_proto::v1;
use portcullis_proto::v1::policy_object::Object;

/// What an organization that requires projects denies.
pub(super) const REQUIRED_PROJECTS: &str =
    "checks of projects that do not exist, and of everything below them, are denied";

/// What a change causes that was made, or would be made, as notes, besides what a preview tells.
pub(super) async fn of_preview(parent: &str, changes: &[v1::ObjectChange], told: Told, client: &Client) -> Vec<String> {
    let denies = denies_nothing(parent, changes, told, client).await.then(|| nothing_denied(parent, told));
    let last = loses_last_project(parent, changes, told, client).await.then(|| no_project_left(parent, told));
    gates_altered(changes, told).chain(denies).chain(last).collect()
}

/// The gates that a change alters: whatever lifts them is told, also where nobody reads the answer itself.
fn gates_altered(changes: &[v1::ObjectChange], told: Told) -> impl Iterator<Item = String> + '_ {
    changes.iter().filter_map(move |change| {
        let after = node(change.after.as_ref())?;
        let before = node(change.before.as_ref()).and_then(|before| before.change_gates.as_ref());
        let (before, now) = (settings::gates(before), settings::gates(after.change_gates.as_ref()));
        (before != now).then(|| settings::gates_told(after, told))
    })
}

/// The organizations that require projects only through these changes.
pub(super) fn requires_projects_anew(changes: &[v1::ObjectChange]) -> impl Iterator<Item = String> + '_ {
    changes.iter().filter_map(|change| {
        let (before, after) = (node(change.before.as_ref())?, node(change.after.as_ref())?);
        (!before.require_projects() && after.require_projects()).then(|| after.name.clone())
    })
}

/// What a firewall without a deny rule does.
pub(super) fn nothing_denied(parent: &str, told: Told) -> String {
    let (denies, allows) = match told {
        Told::Is => ("denies anything now", "allows"),
        Told::Would => ("would deny anything", "would allow"),
    };
    let parent = clean(parent);
    format!("note: no rule of {parent} {denies}: the firewall {allows} every address, by default where no rule matches")
}

/// What stays when the last project goes.
pub(super) fn no_project_left(organization: &str, told: Told) -> String {
    let has = match told {
        Told::Is => "has no project left and still requires",
        Told::Would => "would have no project left and still require",
    };
    let organization = clean(organization);
    format!(
        "note: {organization} {has} projects: every check of a project, and of everything below one, is denied; to \
         permit them: portcullis nodes update {organization} --require-projects=false"
    )
}

/// Whether a rule denies anything now.
pub(super) fn is_denying(rule: &v1::Rule) -> bool {
    rule.action() == v1::Action::Deny && !rule.disabled && !rule.expired
}

/// Whether the changes take away the last rule that denies.
async fn denies_nothing(parent: &str, changes: &[v1::ObjectChange], told: Told, client: &Client) -> bool {
    let are_counted = changes.iter().any(|change| record::counted(change).is_some());
    let denied = |change: &v1::ObjectChange| rule(change.before.as_ref()).is_some_and(is_denying);
    // Where the organization itself goes, everything is denied.
    let is_gone = |change: &v1::ObjectChange| {
        change.after.is_none() && node(change.before.as_ref()).is_some_and(|node| node.name == parent)
    };
    if (!are_counted && !changes.iter().any(denied)) || changes.iter().any(is_gone) {
        return false;
    }
    // Of what is only counted, nobody knows what it is: then only the rules themselves tell.
    if are_counted && told == Told::Would {
        return false;
    }
    let altered = changes.iter().filter(|_| told == Told::Would);
    let altered: HashMap<&str, Option<&v1::Rule>> = altered.filter_map(altered_rule).collect();
    if altered.values().flatten().any(|rule| is_denying(rule)) {
        return false;
    }
    let mut rules = client.firewall();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRulesRequest { parent: parent.to_owned(), page_size: PAGE_SIZE, page_token };
        let Ok(page) = answer(rules.list_rules(request).await) else { return false };
        if page.rules.iter().any(|rule| !altered.contains_key(rule.name.as_str()) && is_denying(rule)) {
            return false;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return true;
        }
    }
}

/// Whether the changes take away the last project of an organization that still requires projects.
async fn loses_last_project(parent: &str, changes: &[v1::ObjectChange], told: Told, client: &Client) -> bool {
    let project = |object| node(object).map(|node| node.name.as_str()).filter(|name| is_project(name));
    let deleted = changes.iter().filter(|change| change.after.is_none());
    let deleted: HashSet<&str> = deleted.filter_map(|change| project(change.before.as_ref())).collect();
    if deleted.is_empty() || changes.iter().any(|change| project(change.after.as_ref()).is_some()) {
        return false;
    }
    let own = changes.iter().filter_map(|change| node(change.after.as_ref())).find(|node| node.name == parent);
    let requires = if let Some(own) = own {
        own.require_projects()
    } else {
        let request = v1::GetNodeRequest { name: parent.to_owned() };
        answer(client.hierarchy().get_node(request).await).is_ok_and(|own| own.require_projects())
    };
    if !requires {
        return false;
    }
    let mut hierarchy = client.hierarchy();
    let gone = if told == Told::Would { deleted.len() } else { 0 };
    let listed = pages::first(u32::try_from(gone + 1).unwrap_or(u32::MAX), async |page_size, page_token| {
        let request = v1::ListNodesRequest { parent: parent.to_owned(), page_size, page_token, ..Default::default() };
        hierarchy.list_nodes(request).await
    });
    listed.await.is_ok_and(|(list, _)| list.nodes.iter().all(|node| gone > 0 && deleted.contains(node.name.as_str())))
}

fn is_project(name: &str) -> bool {
    split_node(name).is_ok_and(|(parent, _)| !parent.is_empty() && parent == organization_of(name))
}

fn node(object: Option<&v1::PolicyObject>) -> Option<&v1::Node> {
    match object?.object.as_ref()? {
        Object::Node(node) => Some(node),
        _ => None,
    }
}

fn rule(object: Option<&v1::PolicyObject>) -> Option<&v1::Rule> {
    match object?.object.as_ref()? {
        Object::Rule(rule) => Some(rule),
        _ => None,
    }
}

/// A rule that is altered, and what becomes of it; none where it is deleted.
fn altered_rule(change: &v1::ObjectChange) -> Option<(&str, Option<&v1::Rule>)> {
    let (before, after) = (rule(change.before.as_ref()), rule(change.after.as_ref()));
    Some((before.or(after)?.name.as_str(), after))
}
