//! A table of refusals: requests that must be refused, each in a certain way, against one server that must go on.
//!
//! Invariant: after every case the same valid Check is answered, at the same revisions as before: what is refused
//! changes nothing. All mismatches of a table are shown, not only the first.
//! Not here: the cases (`malformed_check`, `malformed_firewall`, `malformed_hierarchy`).

use std::fmt::Debug;
use std::ops::Deref;

use portcullis::proto::v1::{
    AccessMode, Action, AddressGroup, CheckRequest, ConnectionType, CreateAddressGroupRequest, CreateRuleRequest,
};
use tonic::{Code, Response, Status};

use crate::harness::{Service, access, fields, rule};

/// The organization that the cases are about.
pub(crate) const ORGANIZATION: &str = "organizations/default";
/// Another one, with a rule, a group and a project.
pub(crate) const OTHER: &str = "organizations/other";
/// A rule of the organization, the first of two.
pub(crate) const RULE: &str = "organizations/default/rules/first";
/// The second rule.
pub(crate) const SECOND: &str = "organizations/default/rules/second";
/// A group of the organization.
pub(crate) const GROUP: &str = "organizations/default/addressGroups/office";
/// A group of the other organization.
pub(crate) const FOREIGN: &str = "organizations/other/addressGroups/office";
/// A project, with a workspace `dev` that has an endpoint `web`.
pub(crate) const PROJECT: &str = "organizations/default/projects/shop";

/// A server with something in it, and what went wrong so far.
pub(crate) struct Table {
    service: Service,
    revisions: [i64; 3],
    cases: usize,
    mismatches: Vec<String>,
}

impl Deref for Table {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl Table {
    /// A server with two rules, a group and a node of every kind, and another organization.
    pub(crate) async fn start() -> Self {
        let service = Service::start().await;
        service.add_node("", "other", None).await;
        for parent in [ORGANIZATION, OTHER] {
            let group = AddressGroup { ranges: vec!["10.0.0.0/8".to_owned()], ..AddressGroup::default() };
            let request = CreateAddressGroupRequest {
                parent: parent.to_owned(),
                address_group: Some(group),
                address_group_id: "office".to_owned(),
                ..CreateAddressGroupRequest::default()
            };
            service.firewall().create_address_group(request).await.unwrap();
            for id in ["first", "second"] {
                let request = CreateRuleRequest {
                    parent: parent.to_owned(),
                    rule: Some(rule(Action::Deny, "198.51.100.0/24")),
                    rule_id: id.to_owned(),
                    ..CreateRuleRequest::default()
                };
                service.firewall().create_rule(request).await.unwrap();
            }
            let project = service.add_node(parent, "shop", Some(access(AccessMode::AllowAll))).await.name;
            let workspace = service.add_node(&project, "dev", None).await.name;
            service.add_node(&workspace, "web", None).await;
        }
        let revisions = revisions(&service).await;
        Self { service, revisions, cases: 0, mismatches: Vec::new() }
    }

    /// Notes the revisions anew, after a test has prepared more than the table has.
    pub(crate) async fn prepared(&mut self) {
        self.revisions = revisions(&self.service).await;
    }

    /// The answer must be `INVALID_ARGUMENT` with exactly these violations, in whatever order.
    pub(crate) async fn invalid<T: Debug>(&mut self, case: &str, answer: Result<Response<T>, Status>, paths: &[&str]) {
        self.refused(case, answer, Code::InvalidArgument, "INVALID_FIELD", paths).await;
    }

    /// The answer must be this error, and the server must go on as if nothing had been asked.
    pub(crate) async fn refused<T: Debug>(
        &mut self,
        case: &str,
        answer: Result<Response<T>, Status>,
        code: Code,
        reason: &str,
        paths: &[&str],
    ) {
        self.cases += 1;
        match answer {
            Ok(answer) => self.mismatches.push(format!("{case}: accepted: {:?}", answer.into_inner())),
            Err(status) => self.judge(case, &status, code, reason, paths),
        }
        let revisions = revisions(&self.service).await;
        if revisions != self.revisions {
            self.mismatches.push(format!("{case}: revisions were {:?} and are {revisions:?}", self.revisions));
            self.revisions = revisions;
        }
    }

    fn judge(&mut self, case: &str, status: &Status, code: Code, reason: &str, paths: &[&str]) {
        let mut found = fields(status);
        found.sort();
        let mut expected = paths.to_vec();
        expected.sort_unstable();
        let given = crate::harness::reason(status);
        if (status.code(), given.as_str()) != (code, reason) || found != expected {
            let got = format!("{:?} {given} {found:?}", status.code());
            self.mismatches.push(format!("{case}: expected {code:?} {reason} {expected:?}, got {got}"));
        }
        let message = status.message();
        if message.is_empty() || message.ends_with('.') || message.starts_with(char::is_uppercase) {
            self.mismatches.push(format!("{case}: not how messages are written: {message}"));
        }
    }

    /// Ends the table: it must have had as many cases, and none may have gone wrong.
    pub(crate) async fn finish(self, cases_min: usize) {
        let Self { service, cases, mismatches, .. } = self;
        service.stop().await;
        let count = mismatches.len();
        assert!(mismatches.is_empty(), "{count} mismatches in {cases} cases:\n  {}", mismatches.join("\n  "));
        assert!(cases >= cases_min, "only {cases} cases");
    }
}

/// The revisions of both organizations and of the cluster, as valid Checks see them.
async fn revisions(service: &Service) -> [i64; 3] {
    let mut revisions = [0; 3];
    for (revision, endpoint) in revisions.iter_mut().zip([ORGANIZATION, OTHER]) {
        let request = CheckRequest {
            ip: "203.0.113.7".to_owned(),
            connection_type: ConnectionType::Preview.into(),
            endpoint: format!("{endpoint}/projects/shop/workspaces/dev/endpoints/web"),
            ..CheckRequest::default()
        };
        let answer = service.decisions().check(request).await.expect("a valid check after a refusal").into_inner();
        assert_eq!(answer.decision(), portcullis::proto::v1::Decision::Allow);
        *revision = answer.revision;
    }
    let name = "cluster".to_owned();
    let request = portcullis::proto::v1::GetNodeRequest { name };
    revisions[2] = service.hierarchy().get_node(request).await.unwrap().into_inner().revision;
    revisions
}
