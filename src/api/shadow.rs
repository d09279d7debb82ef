//! Shadow policies: from requests to changes, and the Checks that they decided otherwise.
//!
//! Invariant: a stream of divergences always ends with an error, because it is never complete.
//! Not here: deciding by a shadow policy (`engine::shadow`).

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tonic::{Code, Response, Status};

use super::caller::Caller;
use super::convert::audit::rule_text_parts;
use super::convert::decision::{to_connection_type, to_decision, to_reason};
use super::convert::names::{self, organization};
use super::convert::to_time;
use super::policy::to_policy;
use super::subscribers::Endless;
use super::{ANSWER_BYTES_MAX, Api, at_revision, preview, status, to_i64};
use crate::audit::rule_text::RuleText;
use crate::engine::audit::AuditError;
use crate::engine::change::{ChangeRequest, ChangeTarget};
use crate::engine::directory::OrganizationView;
use crate::engine::shadow::{Divergence, Shadow, ShadowCounts, Subscription};
use crate::policy::decision::Reason;
use crate::policy::name::{Id, Name};
use crate::policy::plan::{Mutation, ShadowStep};
use crate::proto::v1::{self, ErrorReason};

/// Why gates are not judged when a shadow policy is set.
const GATES_REFUSED: &str = "gates judge a shadow policy when it is promoted: leave `guard_ips`, `max_revocations`, \
                             `refuse_open_to_internet` and `override_tests` out, and give them then";

/// The most divergences buffered for a subscriber: what is buffered is not erased any more.
const SENT_AHEAD_MAX: usize = 1;

pub(super) type Divergences = Endless<v1::Divergence>;

impl Api {
    pub(super) async fn set_shadow_policy(
        &self,
        caller: Caller,
        request: v1::SetShadowPolicyRequest,
    ) -> Result<Response<v1::ShadowPolicy>, Status> {
        let v1::SetShadowPolicyRequest { parent, mutations, options } = request;
        self.check_mutations(&mutations)?;
        let mut read = self.change_reader(options);
        read.refuse_confirm_within();
        if read.options.gates.is_given() {
            read.add("options", GATES_REFUSED);
        }
        let id = organization(&mut read, "parent", &parent);
        preview::check_count(&mut read, mutations.len());
        let id = read.result(id)?;
        let mut steps = Vec::with_capacity(mutations.len());
        for (path, step) in self.read_mutations(mutations).await? {
            let ChangeRequest { target, violations, gates, .. } =
                step.map_err(|fault| preview::unreadable(&path, fault))?;
            if gates.is_given() {
                return Err(status::invalid_field(&format!("{path}.options"), GATES_REFUSED));
            }
            match target {
                ChangeTarget::Organization { id: of, mutation } if of == id => {
                    steps.push(ShadowStep { path, mutation, violations });
                }
                _ => {
                    let description = format!("is not about what is in `{parent}`: leave it out");
                    return Err(status::invalid_field(&path, description));
                }
            }
        }
        let mutation = Mutation::SetShadowPolicy { steps };
        let changed = self.make(caller, read.change_inside(Some(id), Some(mutation))).await?;
        let organization = &changed.view.organization;
        let shadow = self.shadow(&organization.id);
        // A change that was only judged set no shadow policy.
        let answer = match shadow.ok().filter(|_| !changed.validate_only) {
            Some(shadow) => to_shadow(&organization.id, &shadow),
            None => v1::ShadowPolicy { organization: parent, ..v1::ShadowPolicy::default() },
        };
        Ok(at_revision(answer, changed.revision))
    }

    /// The shadow policy of an organization, with its counts.
    fn shadow(&self, id: &Id) -> Result<Arc<Shadow>, Status> {
        let shadow = self.published(id)?.shadow.clone();
        shadow.ok_or_else(|| status::not_found(&format!("the shadow policy of organizations/{id}")))
    }

    pub(super) fn get_shadow_policy(
        &self,
        request: v1::GetShadowPolicyRequest,
    ) -> Result<Response<v1::ShadowPolicy>, Status> {
        let v1::GetShadowPolicyRequest { parent, include_policy } = request;
        let id = names::parent(&parent)?;
        let shadow = self.shadow(&id)?;
        let etags = self.etags()?;
        let policy = include_policy.then(|| {
            let view = OrganizationView::uncounted(Arc::clone(&shadow.policy.organization));
            to_policy(etags, &view, false)
        });
        let answer = v1::ShadowPolicy { policy, ..to_shadow(&id, &shadow) };
        if prost::Message::encoded_len(&answer) > ANSWER_BYTES_MAX {
            return Err(status::answer_too_large("leave out `include_policy`"));
        }
        Ok(at_revision(answer, self.published(&id)?.view.organization.revision))
    }

    pub(super) async fn delete_shadow_policy(
        &self,
        caller: Caller,
        request: v1::DeleteShadowPolicyRequest,
    ) -> Result<Response<()>, Status> {
        let v1::DeleteShadowPolicyRequest { parent, options } = request;
        let mut read = self.change_reader(options);
        let id = organization(&mut read, "parent", &parent);
        let changed = self.make(caller, read.change_inside(id, Some(Mutation::RemoveShadowPolicy))).await?;
        Ok(at_revision((), changed.revision))
    }

    pub(super) async fn promote_shadow_policy(
        &self,
        caller: Caller,
        request: v1::PromoteShadowPolicyRequest,
    ) -> Result<Response<v1::Revision>, Status> {
        let v1::PromoteShadowPolicyRequest { parent, force, options } = request;
        let mut read = self.change_reader(options);
        let id = organization(&mut read, "parent", &parent);
        self.to_new_revision(caller, read.change_inside(id, Some(Mutation::PromoteShadowPolicy { force }))).await
    }

    pub(super) fn list_divergences(
        &self,
        request: v1::ListDivergencesRequest,
    ) -> Result<Response<v1::ListDivergencesResponse>, Status> {
        let v1::ListDivergencesRequest { parent, page_size, page_token } = request;
        let (id, page) = self.page_of_organization("divergences", &parent, page_size, &page_token)?;
        let shadow = self.shadow(&id)?;
        let page = page.of_state(shadow.list_state())?;
        let before = match page.cursor.as_deref().map(str::parse) {
            None => None,
            Some(Ok(before)) => Some(before),
            Some(Err(_)) => return Err(status::invalid_field("page_token", "is no token of this list")),
        };
        let found = shadow.divergences(before, page.size + 1);
        let messages = found.iter().map(|divergence| to_divergence(&id, divergence));
        let (divergences, more) = page.take(messages, prost::Message::encoded_len);
        let last = divergences.last().filter(|_| more);
        let next_page_token = last.map(|last| page.token(&last.number.to_string())).unwrap_or_default();
        let answer = v1::ListDivergencesResponse { divergences, next_page_token };
        Ok(at_revision(answer, self.published(&id)?.view.organization.revision))
    }

    pub(super) fn watch_divergences(
        &self,
        request: v1::WatchDivergencesRequest,
    ) -> Result<Response<Divergences>, Status> {
        let v1::WatchDivergencesRequest { parent } = request;
        let id = names::parent(&parent)?;
        let permit = self.shared.subscribers.subscribe()?;
        let coming = self.shadow(&id)?.subscribe();
        let (sender, divergences) = mpsc::channel(SENT_AHEAD_MAX);
        let draining = self.shared.subscribers.draining();
        tokio::spawn(async move {
            let end = feed(&id, coming, &sender, draining).await;
            if let Some(status) = end {
                drop(sender.send(Err(status)).await);
            }
            drop(permit);
        });
        Ok(Response::new(Endless::new(divergences)))
    }
}

/// Sends divergences as they come. Returns why the stream ends, unless the subscriber went away.
async fn feed(
    id: &Id,
    mut coming: Subscription,
    sender: &mpsc::Sender<Result<v1::Divergence, Status>>,
    mut draining: watch::Receiver<bool>,
) -> Option<Status> {
    let send_all = async {
        loop {
            let Some(divergence) = coming.next().await else {
                let message = format!("the shadow policy of `organizations/{id}` is another one, or gone");
                return Some(status::error(Code::Aborted, ErrorReason::ListChanged, message));
            };
            sender.send(Ok(to_divergence(id, &divergence))).await.ok()?;
        }
    };
    let ended = async { drop(draining.wait_for(|draining| *draining).await) };
    tokio::select! {
        end = send_all => end,
        () = ended => Some(status::audit(AuditError::ShuttingDown)),
        () = sender.closed() => None,
    }
}

fn to_shadow(id: &Id, shadow: &Shadow) -> v1::ShadowPolicy {
    let ShadowCounts { checks, denied, permitted } = shadow.counts();
    v1::ShadowPolicy {
        organization: Name::organization(id).to_string(),
        revision: to_i64(shadow.policy.revision),
        set_time: Some(to_time(shadow.policy.time)),
        count_start_time: Some(to_time(shadow.since)),
        check_count: to_i64(checks),
        newly_denied_count: to_i64(denied),
        newly_permitted_count: to_i64(permitted),
        policy: None,
    }
}

fn to_divergence(id: &Id, divergence: &Divergence) -> v1::Divergence {
    let Divergence { number, time, address, email, connection_type, endpoint, enforced, tried } = divergence;
    let rule = |(_, rule): &(Reason, Option<(Id, RuleText)>)| {
        let name = rule.as_ref().map(|(rule, _)| Name::rule(id, rule).to_string()).unwrap_or_default();
        let (source, description) = rule_text_parts(Some(id), rule.as_ref().map(|(_, text)| text));
        (name, source, description)
    };
    let (enforced_rule, rule_source, rule_description) = rule(enforced);
    let (shadow_rule, shadow_rule_source, shadow_rule_description) = rule(tried);
    v1::Divergence {
        number: to_i64(*number),
        time: Some(to_time(*time)),
        ip: address.to_string(),
        user_email: email.to_string(),
        connection_type: to_connection_type(*connection_type).into(),
        endpoint: endpoint.to_string(),
        decision: to_decision(enforced.0.decision()).into(),
        reason: to_reason(enforced.0).into(),
        rule: enforced_rule,
        shadow_decision: to_decision(tried.0.decision()).into(),
        shadow_reason: to_reason(tried.0).into(),
        shadow_rule,
        rule_source,
        rule_description,
        shadow_rule_source,
        shadow_rule_description,
    }
}
