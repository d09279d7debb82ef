//! The list as the rules of an organization of Portcullis.
//!
//! Invariant: what is evaluated is the whole decision of a connection to the organization, from the address as text.
//! Not here: sessions and the record, which a service adds (`../systems.py` asks one).

use anyhow::{Context, Result};
use portcullis::policy::address::{Address, Range};
use portcullis::policy::decision::Decision;
use portcullis::policy::members::MembersCache;
use portcullis::policy::name::{Id, NodePath};
use portcullis::policy::node::{Access, Node};
use portcullis::policy::organization::{Cluster, Organization};
use portcullis::policy::rule::{Action, ConnectionType, Rule, RulePatch, Source};
use portcullis::policy::snapshot::{ClusterSnapshot, Snapshot};
use portcullis::policy::time::Timestamp;
use std::sync::Arc;

use crate::{Contestant, List};

fn rule(place: usize, range: &str, allow: bool, now: Timestamp) -> Result<Arc<Rule>> {
    let action = if allow { Action::Allow } else { Action::Deny };
    let range: Range = range.parse()?;
    let patch = RulePatch { action: Some(action), source: Some(Source::Range(range)), ..RulePatch::default() };
    let rule = patch.to_rule(Id::parse(&format!("rule-{place}"))?, now, 1);
    Ok(Arc::new(rule.context("a rule has an action and a source")?))
}

/// Portcullis on the list in order.
pub(crate) fn contestant(list: &List) -> Result<Contestant> {
    let now = Timestamp::from_millis(1_000);
    let mut organization = Organization::new(Id::parse("default")?, 1, Node::new(Access::AllowAll, now, 1));
    let rules = list.rules.iter().enumerate().map(|(place, (range, allow))| rule(place, range, *allow, now));
    organization.rules = Arc::new(rules.collect::<Result<_>>()?);
    let snapshot = Snapshot::compile(&organization, &mut MembersCache::default());
    let cluster = ClusterSnapshot::compile(&Cluster::new(now));
    let target = NodePath::parse("organizations/default")?;
    let addresses: Vec<String> = list.questions.iter().map(|question| question.address.clone()).collect();
    Ok(Contestant::new("Portcullis", move |at| {
        let address: Address = addresses.get(at).map_or("", String::as_str).parse()?;
        let verdict = snapshot.decide(&cluster, address, ConnectionType::Shell, &target, now);
        Ok(verdict.decision() == Decision::Allow)
    }))
}
