//! What a change causes besides what was typed: foreseen by a preview before it, told after it.
//!
//! Invariant: a change never fails because its effects cannot be told. What was so before the change is not told.
//! Not here: computing effects, which the server does; whole previews (`comparison`).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use portcullis_client::answer;
use prost::Message;

use super::change::ChangeArgs;
use super::color::{ColorWhen, Colors};
use super::consequences::REQUIRED_PROJECTS;
use super::context::Context;
use super::difference::{self, Told, UNREGISTERED};
use super::error::of_call;
use super::names::organization_of;
use super::table::clean;
use portcullis_policy::name::CLUSTER;
use portcullis_proto::v1;
use portcullis_proto::v1::mutation::Request as Asked;
use portcullis_proto::v1::policy_object::Object;

/// The most bytes of a request that is sent once more, to foresee what it causes.
pub(super) const BYTES_MAX: usize = 3 << 20;

/// How long a change waits for the preview.
const PATIENCE: Duration = Duration::from_secs(20);

/// The most lines about address families.
const FAMILIES_TOLD: usize = 8;

/// The most rules that are looked up to judge whether a problem was meant.
const RULES_ASKED: usize = 10;

/// The ranges that are a whole address family.
const FAMILIES: [&str; 3] = ["any", "0.0.0.0/0", "::/0"];

/// What a change will cause.
pub(super) struct Effects {
    name: String,
    foreseen: Foreseen,
    /// How much is told of who gets in and who is kept out.
    detail: Detail,
}

/// How much is told of who gets in and who is kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Whole address families.
    Families,
    /// Every range, as a preview does.
    Ranges,
}

enum Foreseen {
    /// As the server previewed it.
    Preview(Box<v1::PreviewChangeResponse>),
    /// Nothing yet: the request is too large to be sent twice. The revision before the change, where it is known.
    TooLarge(Option<i64>),
    /// Nothing, and why.
    Unknown(String),
    /// Nothing: the organization is new, and a preview has nothing to compare it with.
    New,
}

impl Effects {
    /// Asks what a request will cause to the organization or the cluster that `name` belongs to.
    pub(super) async fn of(name: &str, request: Asked, context: &Context<'_>) -> Self {
        if matches!(&request, Asked::CreateNode(create) if create.parent.is_empty()) {
            return Self::with(name, Foreseen::New);
        }
        let mutation = v1::Mutation { request: Some(request.clone()) };
        if mutation.encoded_len() > BYTES_MAX {
            return Self::too_large(name, context).await;
        }
        let asked = context.ask_preview(name, request, Some(Duration::ZERO));
        let foreseen = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(preview)) => Foreseen::Preview(Box::new(preview)),
            Ok(Err(error)) => Foreseen::Unknown(of_call(&error)),
            Err(_) => Foreseen::Unknown(format!("the server took longer than {} seconds", PATIENCE.as_secs())),
        };
        Self::with(name, foreseen)
    }

    fn with(name: &str, foreseen: Foreseen) -> Self {
        Self { name: name.to_owned(), foreseen, detail: Detail::Families }
    }

    /// The same, told in this detail.
    pub(super) fn in_detail(self, detail: Detail) -> Self {
        Self { detail, ..self }
    }

    /// The effects of a request that is too large to be sent twice.
    pub(super) async fn too_large(name: &str, context: &Context<'_>) -> Self {
        Self::with(name, Foreseen::TooLarge(revision(name, context).await))
    }

    /// What it alters, as far as that was foreseen.
    pub(super) fn changes(&self) -> &[v1::ObjectChange] {
        match &self.foreseen {
            Foreseen::Preview(preview) => &preview.changes,
            Foreseen::TooLarge(_) | Foreseen::Unknown(_) | Foreseen::New => &[],
        }
    }

    /// Says on the standard error what the change caused, or would cause where it was only validated.
    pub(super) async fn tell(&self, change: &ChangeArgs, context: &mut Context<'_>) {
        self.tell_with(change, true, context).await;
    }

    /// The same, where the answer to the change names the problems.
    pub(super) async fn tell_without_problems(&self, change: &ChangeArgs, context: &mut Context<'_>) {
        self.tell_with(change, false, context).await;
    }

    async fn tell_with(&self, change: &ChangeArgs, problems: bool, context: &mut Context<'_>) {
        let told = change.told();
        match &self.foreseen {
            Foreseen::Preview(preview) => {
                let problems = if problems { caused(preview, context).await } else { Vec::new() };
                let mut lines = self.differences(preview, told, context);
                lines.extend(besides(preview, told));
                let is_felt = !lines.is_empty() || !problems.is_empty();
                if preview.changes.is_empty() && !preview.truncated {
                    lines.push(nothing(told));
                }
                if self.name == CLUSTER && is_felt {
                    lines.push(OF_CLUSTER.to_owned());
                }
                if told == Told::Would && !problems.is_empty() {
                    lines.push("note: problems that would come:".to_owned());
                }
                for line in &lines {
                    context.output.note(line);
                }
                context.note_problems(&problems);
            }
            Foreseen::Unknown(why) => {
                context.output.note(&format!("note: what it causes besides is not told: {}", clean(why)));
            }
            Foreseen::New if told == Told::Is => {
                let request = v1::ListProblemsRequest { parent: self.name.clone(), ..Default::default() };
                let list = answer(context.client.analysis().list_problems(request).await).unwrap_or_default();
                let is_bad = |problem: &v1::Problem| problem.severity() != v1::Severity::Info;
                context.note_problems(&list.problems.into_iter().filter(is_bad).collect::<Vec<_>>());
            }
            Foreseen::New => {}
            Foreseen::TooLarge(before) => self.tell_afterwards(*before, told, context).await,
        }
    }

    /// Who gets in and who is kept out, in the detail that is to be told.
    fn differences(&self, preview: &v1::PreviewChangeResponse, told: Told, context: &Context<'_>) -> Vec<String> {
        let differences = surprising(preview);
        if self.detail == Detail::Families {
            return families(&differences, told);
        }
        let text = difference::text(&differences, told, Colors::of(ColorWhen::Never, context.output));
        let alters = if told == Told::Would { "would alter" } else { "alters" };
        let note = || format!("note: the change {alters} who gets in:{}", text.trim_end());
        (!text.is_empty()).then(note).into_iter().collect()
    }

    /// Says what a change caused that was too large to be foreseen.
    async fn tell_afterwards(&self, before: Option<i64>, told: Told, context: &mut Context<'_>) {
        let mib = BYTES_MAX >> 20;
        let not_told = |what: &str, how: &str| {
            format!("note: {what} is not told, because the change has more than {mib} MiB of ranges: {how}")
        };
        let after = revision(&self.name, context).await;
        let Some((before, after)) = before.zip(after).filter(|_| told == Told::Is) else {
            return context.output.note(&not_told("what it causes besides", "preview a part of it"));
        };
        if before == after {
            return context.output.note(&nothing(told));
        }
        let named = |revision: i64| format!("{}/revisions/{revision}", organization_of(&self.name));
        let request = v1::CompareRevisionsRequest { base: named(before), name: named(after) };
        if let Ok(compared) = answer(context.client.analysis().compare_revisions(request).await) {
            for line in families(&compared.differences, told) {
                context.output.note(&line);
            }
        }
        let how = "see `portcullis problems` and `portcullis sessions list`";
        context.output.note(&not_told("which sessions it revoked and which problems it brought", how));
    }
}

const OF_CLUSTER: &str =
    "note: this is a change of the cluster, for which its own gates hold, and none of the gates of organizations";

/// Says that a change has no effect.
fn nothing(told: Told) -> String {
    let changed = if told == Told::Would { "nothing would change" } else { "nothing changed" };
    format!("note: {changed}: what was given is so already")
}

/// The revision of the organization that `name` belongs to.
async fn revision(name: &str, context: &Context<'_>) -> Option<i64> {
    let request = v1::GetNodeRequest { name: organization_of(name) };
    answer(context.client.hierarchy().get_node(request).await).ok().map(|node| node.revision)
}

/// What a preview foresees besides differences and problems.
fn besides(preview: &v1::PreviewChangeResponse, told: Told) -> Vec<String> {
    let mut lines: Vec<String> = revocations(preview, told).collect();
    lines.extend(required_projects(&preview.changes, told));
    if preview.truncated {
        lines.push("note: not all of what it causes is told: it is too much for one answer".to_owned());
    }
    lines
}

/// The differences without what is typed or told by other words: whom a new node keeps out, whom one that is deleted no
/// longer lets in, and what becomes of projects
/// that do not exist where the organization requires projects or no longer does.
fn surprising(preview: &v1::PreviewChangeResponse) -> Vec<v1::AccessDifference> {
    let typed: HashSet<&str> =
        preview.changes.iter().filter_map(|change| created(change).or(deleted(change))).collect();
    let requires: Vec<(String, bool)> = preview.changes.iter().filter_map(required).collect();
    let kept = |of: &v1::AccessDifference| {
        let organization = of.node.strip_suffix(UNREGISTERED);
        let is_told = requires.iter().any(|(name, _)| Some(name.as_str()) == organization);
        let newly_denied = if typed.contains(of.node.as_str()) { Vec::new() } else { of.newly_denied.clone() };
        let is_empty = newly_denied.is_empty() && of.newly_permitted.is_empty();
        (!is_told && !is_empty).then(|| v1::AccessDifference { newly_denied, ..of.clone() })
    };
    preview.differences.iter().filter_map(kept).collect()
}

fn node(object: Option<&v1::PolicyObject>) -> Option<&v1::Node> {
    match object?.object.as_ref()? {
        Object::Node(node) => Some(node),
        _ => None,
    }
}

/// The name of the node that a change creates, if it creates one.
fn created(change: &v1::ObjectChange) -> Option<&str> {
    node(change.after.as_ref()).filter(|_| change.before.is_none()).map(|node| node.name.as_str())
}

/// The name of the node that a change deletes, if it deletes one.
fn deleted(change: &v1::ObjectChange) -> Option<&str> {
    node(change.before.as_ref()).filter(|_| change.after.is_none()).map(|node| node.name.as_str())
}

/// The organization for which a change alters whether it requires projects, and whether it then does.
fn required(change: &v1::ObjectChange) -> Option<(String, bool)> {
    let (before, after) = (node(change.before.as_ref())?, node(change.after.as_ref())?);
    (before.require_projects() != after.require_projects()).then(|| (after.name.clone(), after.require_projects()))
}

/// Whole address families that get in or are kept out.
fn families(differences: &[v1::AccessDifference], told: Told) -> Vec<String> {
    let mut lines: Vec<String> =
        difference::families(differences, told).into_iter().map(|line| format!("note: {line}")).collect();
    let more = lines.len().saturating_sub(FAMILIES_TOLD);
    lines.truncate(FAMILIES_TOLD);
    lines.extend((more > 0).then(|| format!("note: and {more} more such differences")));
    lines
}

fn revocations(preview: &v1::PreviewChangeResponse, told: Told) -> impl Iterator<Item = String> {
    let v1::PreviewChangeResponse { revocation_count: all, later_revocation_count: later, .. } = preview;
    let line = move |count: i64, is_later: bool| {
        let sessions = if count == 1 { "1 active session".to_owned() } else { format!("{count} active sessions") };
        let revoked = match (told, is_later, count) {
            (Told::Would, ..) => "would be revoked",
            (Told::Is, true, _) => "will be revoked",
            (Told::Is, false, 1) => "was revoked",
            (Told::Is, false, _) => "were revoked",
        };
        let when = if is_later { " at a later moment, unless it ends before" } else { "" };
        (count > 0).then(|| format!("note: {sessions} {revoked}{when}"))
    };
    [line(all - later, false), line(*later, true)].into_iter().flatten()
}

/// Organizations that require projects from now on, or no longer.
fn required_projects(changes: &[v1::ObjectChange], told: Told) -> Vec<String> {
    let is_first = changes.iter().any(|change| created(change).is_some());
    let because = if is_first { ", because this is its first project" } else { "" };
    let line = |(name, requires): (String, bool)| {
        let name = clean(&name);
        let would = told == Told::Would;
        if requires {
            let requires = if would { "would require" } else { "requires" };
            format!(
                "note: {name} {requires} projects from now on{because}: {REQUIRED_PROJECTS}; to permit them again: \
                 portcullis nodes update {name} --require-projects=false"
            )
        } else {
            let requires = if would { "would no longer require" } else { "no longer requires" };
            format!(
                "note: {name} {requires} projects: checks of projects that do not exist, and of everything below them, \
                 are decided as those of {name} are"
            )
        }
    };
    changes.iter().filter_map(required).map(line).collect()
}

/// The problems that a change brings and that its author has not meant. An exception above a rule for everybody is meant.
/// Of what is only untidy, what comes with time or is part of a larger task is left out.
async fn caused(preview: &v1::PreviewChangeResponse, context: &Context<'_>) -> Vec<v1::Problem> {
    let changed = preview.changes.iter().filter_map(|change| match &change.after.as_ref()?.object {
        Some(Object::Rule(rule)) => Some((rule.name.clone(), is_for_everybody(rule))),
        _ => None,
    });
    let mut everybody: HashMap<String, bool> = changed.collect();
    let mut problems = Vec::new();
    for problem in &preview.problems_added {
        let is_told = match (problem.severity(), problem.code()) {
            (v1::Severity::Warning | v1::Severity::Error, _) | (_, v1::ProblemCode::ExpiredRule) => true,
            (_, v1::ProblemCode::PartlyShadowedRule) => {
                if !everybody.contains_key(&problem.resource) && everybody.len() < changed_max(preview) {
                    let request = v1::GetRuleRequest { name: problem.resource.clone(), ..Default::default() };
                    let rule = answer(context.client.firewall().get_rule(request).await);
                    everybody.insert(problem.resource.clone(), rule.is_ok_and(|rule| is_for_everybody(&rule)));
                }
                !everybody.get(&problem.resource).copied().unwrap_or(false)
            }
            _ => false,
        };
        problems.extend(is_told.then(|| problem.clone()));
    }
    problems
}

/// How many rules are known at most, with those that are looked up.
fn changed_max(preview: &v1::PreviewChangeResponse) -> usize {
    preview.changes.len() + RULES_ASKED
}

/// Whether a rule is for a whole address family.
fn is_for_everybody(rule: &v1::Rule) -> bool {
    matches!(&rule.source, Some(v1::rule::Source::Range(range)) if FAMILIES.contains(&range.as_str()))
}
