//! Every etag and every page token of the API, found in its descriptors: that answers have the lineage, and that what is of
//! another one is refused.
//!
//! Invariant: a new RPC, or a new field that holds an etag, is in these tables without anybody adding it.
//! Not here: what happens after a restore (`lineage`).

use std::collections::{BTreeMap, BTreeSet};

use http::uri::PathAndQuery;
use portcullis::config::Config;
use portcullis::proto::from_json;
use portcullis::proto::v1::{CreateRuleRequest, ExportPolicyRequest, ListRulesRequest, Policy};
use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};
use prost::{Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

use crate::harness::{Service, reason, rule};
use crate::lineage::{DEFAULT, renew};

/// Where an etag stands in a request and means nothing: the object is new, or its list or policy is guarded as a whole.
/// The proto comments say so.
const IGNORED: &[&str] = &["create_rule.rule.etag", "create_address_group.address_group.etag", "create_node.node.etag"];
const IGNORED_WITHIN: &[&str] = &["replace_rules.rules.", "apply_policy.policy."];

/// The messages of `portcullis.v1` by their full names, and request and answer of each RPC by its path.
struct Descriptors {
    messages: BTreeMap<String, DescriptorProto>,
    rpcs: BTreeMap<String, (String, String)>,
}

/// A field of a request: the dotted path of names, and its number at each step.
type Field = (String, Vec<u32>);

impl Descriptors {
    fn read() -> Self {
        let set = FileDescriptorSet::decode(portcullis::proto::DESCRIPTOR).unwrap();
        let (mut messages, mut rpcs) = (BTreeMap::new(), BTreeMap::new());
        for file in set.file.into_iter().filter(|file| file.package() == "portcullis.v1") {
            for message in file.message_type {
                messages.insert(format!(".portcullis.v1.{}", message.name()), message);
            }
            for service in file.service {
                for method in &service.method {
                    let path = format!("/portcullis.v1.{}/{}", service.name(), method.name());
                    rpcs.insert(path, (method.input_type().to_owned(), method.output_type().to_owned()));
                }
            }
        }
        Self { messages, rpcs }
    }

    /// All fields with one of these names, at any depth of a message.
    fn fields(&self, message: &str, names: &[&str]) -> Vec<Field> {
        let mut found = Vec::new();
        self.collect(message, names, &(String::new(), Vec::new()), &mut vec![message.to_owned()], &mut found);
        found
    }

    fn collect(&self, message: &str, names: &[&str], to: &Field, within: &mut Vec<String>, found: &mut Vec<Field>) {
        let Some(descriptor) = self.messages.get(message) else { return };
        for field in &descriptor.field {
            let dot = if to.0.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{}", to.0, field.name());
            let numbers = to.1.iter().copied().chain([u32::try_from(field.number()).unwrap()]).collect();
            if names.contains(&field.name()) {
                assert!(field.r#type() == Type::String && field.label() != Label::Repeated, "{message}: {path}");
                found.push((path, numbers));
            } else if field.r#type() == Type::Message && !within.contains(&field.type_name().to_owned()) {
                within.push(field.type_name().to_owned());
                self.collect(field.type_name(), names, &(path, numbers), within, found);
                within.pop();
            }
        }
    }
}

impl Descriptors {
    /// Adds the texts of a field, at any depth of an encoded message.
    fn texts(&self, message: &str, field: &str, mut bytes: &[u8], found: &mut Vec<String>) {
        let Some(descriptor) = self.messages.get(message) else { return };
        while !bytes.is_empty() {
            let (number, wire_type) = decode_key(&mut bytes).unwrap();
            if wire_type != WireType::LengthDelimited {
                skip_field(wire_type, number, &mut bytes, DecodeContext::default()).unwrap();
                continue;
            }
            let length = usize::try_from(decode_varint(&mut bytes).unwrap()).unwrap();
            let (content, rest) = bytes.split_at(length);
            bytes = rest;
            let number = i32::try_from(number).unwrap();
            let known = descriptor.field.iter().find(|field| field.number() == number).unwrap();
            if known.name() == field {
                found.push(String::from_utf8(content.to_vec()).unwrap());
            } else if known.r#type() == Type::Message {
                self.texts(known.type_name(), field, content, found);
            }
        }
    }
}

/// A message with nothing but one text field.
fn message_with(numbers: &[u32], text: &str) -> Vec<u8> {
    numbers.iter().rev().fold(text.as_bytes().to_vec(), |inner, number| {
        let mut outer = Vec::new();
        encode_key(*number, WireType::LengthDelimited, &mut outer);
        encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    })
}

/// Messages as their bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Calls an RPC of any kind with one message.
async fn call(service: &Service, path: &str, message: Vec<u8>) -> Result<Bytes, Status> {
    let mut client = Grpc::new(service.channel.clone());
    client.ready().await.unwrap();
    let request = Request::new(tokio_stream::iter([message]));
    let path = path.parse::<PathAndQuery>().unwrap();
    let mut answers = client.streaming(request, path, Raw).await?.into_inner();
    Ok(answers.message().await?.unwrap_or_default())
}

async fn policy(service: &Service) -> Policy {
    let request = ExportPolicyRequest { parent: DEFAULT.to_owned(), ..ExportPolicyRequest::default() };
    service.analysis().export_policy(request).await.unwrap().into_inner()
}

/// Whether the service says that it ignores this etag. The name of a mutation is that of its RPC.
fn is_ignored(rpc: &str, path: &str) -> bool {
    let snake = rpc.char_indices().map(|(at, letter)| match (letter.is_ascii_uppercase(), at) {
        (true, 0) => letter.to_ascii_lowercase().to_string(),
        (true, _) => format!("_{}", letter.to_ascii_lowercase()),
        (false, _) => letter.to_string(),
    });
    let path = match path.strip_prefix("mutations.") {
        Some(path) => path.to_owned(),
        None => format!("{}.{path}", snake.collect::<String>()),
    };
    IGNORED.contains(&path.as_str()) || IGNORED_WITHIN.iter().any(|within| path.starts_with(within))
}

/// The hazard: one RPC of many accepts what the lost history gave out. It is refused before anything else: the requests
/// have nothing but the etag or the token.
#[tokio::test]
async fn every_etag_and_page_token_of_another_lineage_is_refused_by_every_rpc() {
    let temporary = tempfile::tempdir().unwrap();
    let config = || Config::for_data_dir(temporary.path().join("data"));
    let service = Service::with_config(config()).await;
    for id in ["a", "b"] {
        let rule = Some(rule(portcullis::proto::v1::Action::Deny, "192.0.2.1"));
        let request =
            CreateRuleRequest { parent: DEFAULT.to_owned(), rule_id: id.to_owned(), rule, ..Default::default() };
        service.firewall().create_rule(request).await.unwrap();
    }
    let list = ListRulesRequest { parent: DEFAULT.to_owned(), page_size: 1, ..ListRulesRequest::default() };
    let list = service.firewall().list_rules(list).await.unwrap().into_inner();
    service.stop().await;
    renew(&temporary.path().join("data"));
    let service = Service::with_config(config()).await;
    let before = policy(&service).await;

    let descriptors = Descriptors::read();
    let (mut refused, mut ignored, mut faults) = (0, 0, Vec::new());
    for (path, (request, _)) in &descriptors.rpcs {
        let rpc = path.rsplit('/').next().unwrap();
        for (field, numbers) in descriptors.fields(request, &["etag", "page_token"]) {
            let text = if field.ends_with("etag") { &list.etag } else { &list.next_page_token };
            let status = call(&service, path, message_with(&numbers, text)).await.unwrap_err();
            let is_refused = (status.code(), reason(&status).as_str()) == (Code::Aborted, "LINEAGE_CHANGED");
            if is_refused == is_ignored(rpc, &field) {
                faults.push(format!("{rpc} {field}: {status:?}"));
            }
            if is_refused { refused += 1 } else { ignored += 1 }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // That the descriptors are walked at all, into the mutations of previews and shadow policies.
    assert!(refused >= 57 && ignored >= 24, "{refused} refused, {ignored} ignored");
    assert_eq!(policy(&service).await, before, "nothing is changed");
    service.stop().await;
}

/// A request by its canonical JSON.
fn ask<M: Message + Name + Default>(json: &str) -> Vec<u8> {
    let json = json.replace("ORG", DEFAULT);
    from_json::<M>(&json).unwrap_or_else(|error| panic!("{json}: {error}")).encode_to_vec()
}

/// A request of each RPC whose answer has an etag, in an order in which they can be made.
fn asked() -> Vec<(&'static str, Vec<u8>)> {
    use portcullis::proto::v1::*;
    const RULE: &str = r#"{"parent": "ORG", "ruleId": "a", "rule": {"action": "ACTION_DENY", "range": "192.0.2.1"}}"#;
    const SHADOW: &str = r#"{"parent": "ORG", "mutations": [{"createRule": {"parent": "ORG", "ruleId": "tried",
        "rule": {"action": "ACTION_DENY", "range": "192.0.2.9"}}}]}"#;
    vec![
        ("CreateRule", ask::<CreateRuleRequest>(RULE)),
        ("GetRule", ask::<GetRuleRequest>(r#"{"name": "ORG/rules/a"}"#)),
        ("ListRules", ask::<ListRulesRequest>(r#"{"parent": "ORG"}"#)),
        ("UpdateRule", ask::<UpdateRuleRequest>(r#"{"rule": {"name": "ORG/rules/a", "description": "x"}}"#)),
        ("MoveRule", ask::<MoveRuleRequest>(r#"{"name": "ORG/rules/a", "position": 1}"#)),
        ("ReorderRules", ask::<ReorderRulesRequest>(r#"{"parent": "ORG", "rules": ["ORG/rules/a"]}"#)),
        ("CreateAddressGroup", ask::<CreateAddressGroupRequest>(r#"{"parent": "ORG", "addressGroupId": "g"}"#)),
        ("GetAddressGroup", ask::<GetAddressGroupRequest>(r#"{"name": "ORG/addressGroups/g"}"#)),
        ("ListAddressGroups", ask::<ListAddressGroupsRequest>(r#"{"parent": "ORG"}"#)),
        (
            "UpdateAddressGroup",
            ask::<UpdateAddressGroupRequest>(
                r#"{"addressGroup": {"name": "ORG/addressGroups/g", "description": "x"}}"#,
            ),
        ),
        ("AddRanges", ask::<AddRangesRequest>(r#"{"name": "ORG/addressGroups/g", "ranges": ["192.0.2.1"]}"#)),
        ("RemoveRanges", ask::<RemoveRangesRequest>(r#"{"name": "ORG/addressGroups/g", "ranges": ["192.0.2.1"]}"#)),
        ("ListRanges", ask::<ListRangesRequest>(r#"{"name": "ORG/addressGroups/g"}"#)),
        ("ReplaceRanges", ask::<ReplaceRangesRequest>(r#"{"name": "ORG/addressGroups/g", "ranges": ["192.0.2.1"]}"#)),
        ("PatchRanges", ask::<PatchRangesRequest>(r#"{"name": "ORG/addressGroups/g", "add": ["192.0.2.2"]}"#)),
        ("CreateNode", ask::<CreateNodeRequest>(r#"{"parent": "ORG", "nodeId": "web"}"#)),
        ("GetNode", ask::<GetNodeRequest>(r#"{"name": "ORG"}"#)),
        ("ListNodes", ask::<ListNodesRequest>(r#"{"parent": "ORG"}"#)),
        ("UpdateNode", ask::<UpdateNodeRequest>(r#"{"node": {"name": "cluster", "displayName": "x"}}"#)),
        (
            "AddAccessEntries",
            ask::<AddAccessEntriesRequest>(r#"{"name": "ORG/projects/web", "entries": [{"range": "192.0.2.1"}]}"#),
        ),
        (
            "RemoveAccessEntries",
            ask::<RemoveAccessEntriesRequest>(r#"{"name": "ORG/projects/web", "sources": [{"range": "192.0.2.1"}]}"#),
        ),
        ("PreviewChange", ask::<PreviewChangeRequest>(SHADOW)),
        ("SetShadowPolicy", ask::<SetShadowPolicyRequest>(SHADOW)),
        ("GetShadowPolicy", ask::<GetShadowPolicyRequest>(r#"{"parent": "ORG", "includePolicy": true}"#)),
        ("PromoteShadowPolicy", ask::<PromoteShadowPolicyRequest>(r#"{"parent": "ORG"}"#)),
        ("ListRevisions", ask::<ListRevisionsRequest>(r#"{"parent": "ORG"}"#)),
        ("GetRevision", ask::<GetRevisionRequest>(r#"{"name": "ORG/revisions/2"}"#)),
        (
            "CompareRevisions",
            ask::<CompareRevisionsRequest>(r#"{"base": "ORG/revisions/1", "name": "ORG/revisions/2"}"#),
        ),
        ("RollbackRevision", ask::<RollbackRevisionRequest>(r#"{"name": "ORG/revisions/2", "force": true}"#)),
        ("ExportPolicy", ask::<ExportPolicyRequest>(r#"{"parent": "ORG"}"#)),
        (
            "ApplyPolicy",
            ask::<ApplyPolicyRequest>(r#"{"parent": "ORG", "policy": {"sections": ["POLICY_SECTION_NODES"]}}"#),
        ),
        ("ListAuditRecords", ask::<ListAuditRecordsRequest>(r#"{"parent": "ORG"}"#)),
        (
            "WatchEvents",
            ask::<WatchEventsRequest>(
                r#"{"parent": "ORG", "afterSequence": "0", "types": ["AUDIT_TYPE_POLICY_CHANGED"]}"#,
            ),
        ),
        (
            "ReplaceRules",
            ask::<ReplaceRulesRequest>(
                &RULE.replace(r#""ruleId": "a", "rule": {"#, r#""rules": [{"#).replace("}}", "}]}"),
            ),
        ),
    ]
}

/// Answers in which no etag has a value: what they show has none, or is not shown there.
const WITHOUT: &[&str] = &["SetShadowPolicy", "ListRevisions"];

#[tokio::test]
async fn every_etag_of_every_answer_has_the_lineage() {
    let service = Service::start().await;
    let lineage = std::fs::read_to_string(service.data_dir().join("LINEAGE")).unwrap();
    let suffix = format!("-{}", lineage.get(..8).unwrap());
    let descriptors = Descriptors::read();
    let mut covered = BTreeSet::new();
    for (rpc, message) in asked() {
        let (path, (_, answer)) = descriptors.rpcs.iter().find(|(path, _)| path.ends_with(&format!("/{rpc}"))).unwrap();
        let bytes = call(&service, path, message).await.unwrap_or_else(|status| panic!("{rpc}: {status:?}"));
        let mut etags = Vec::new();
        descriptors.texts(answer, "etag", &bytes, &mut etags);
        assert_eq!(etags.is_empty(), WITHOUT.contains(&rpc), "{rpc}: {etags:?}");
        assert!(etags.iter().all(|etag| etag.ends_with(&suffix)), "{rpc}: {etags:?}");
        covered.insert(path.clone());
    }
    for (path, (_, answer)) in &descriptors.rpcs {
        let has_etag = !descriptors.fields(answer, &["etag"]).is_empty();
        // A confirmation alters no object that it could show.
        assert!(!has_etag || covered.contains(path) || path.ends_with("/ConfirmRevision"), "{path} is not asked");
    }
    service.stop().await;
}
