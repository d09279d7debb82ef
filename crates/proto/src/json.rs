//! Canonical JSON over the messages, by the protocol buffers mapping: what `grpcurl` prints for the same message.
//!
//! Invariant: fields stand in their order in the proto, in lowerCamelCase; 64-bit numbers are texts, enum values full
//! names, times RFC 3339; fields with the default value are left out. What [`to_json`] writes, [`from_json`] reads.
//! Not here: which messages are shown, and to whom.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};

/// The descriptors of the public API, decoded once.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(crate::DESCRIPTOR).unwrap_or_default());

/// A message as its canonical JSON, for a serializer of JSON.
#[derive(Clone, Debug)]
pub struct Json(Result<DynamicMessage, String>);

/// The canonical JSON of a message of the public API.
///
/// Writing it fails where the message has none: a message of another package, a time outside of the years 1 to 9999,
/// or a `google.protobuf.Any` of a type that the public API does not have.
pub fn to_json<M: Message + Name>(message: &M) -> Json {
    Json(descriptor::<M>().and_then(|descriptor| {
        let mut dynamic = DynamicMessage::new(descriptor);
        dynamic.transcode_from(message).map_err(|error| error.to_string())?;
        Ok(dynamic)
    }))
}

/// Reads a message of the public API from its canonical JSON. A field that the message does not have is an error.
pub fn from_json<M: Message + Name + Default>(text: &str) -> Result<M, serde_json::Error> {
    let descriptor = descriptor::<M>().map_err(serde_json::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let dynamic = DynamicMessage::deserialize(descriptor, &mut deserializer)?;
    deserializer.end()?;
    dynamic.transcode_to().map_err(serde_json::Error::custom)
}

fn descriptor<M: Name>() -> Result<MessageDescriptor, String> {
    let name = M::full_name();
    POOL.get_message_by_name(&name).ok_or_else(|| format!("`{name}` is not of the public API"))
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self(Ok(message)) => message.serialize(serializer),
            Self(Err(cause)) => Err(S::Error::custom(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::{storage, v1};

    fn written<M: Message + Name>(message: &M) -> String {
        serde_json::to_string(&to_json(message)).unwrap()
    }

    fn rule() -> v1::Rule {
        v1::Rule {
            name: "organizations/acme/rules/office".to_owned(),
            action: v1::Action::Deny.into(),
            source: Some(v1::rule::Source::AddressGroup("organizations/acme/addressGroups/office".to_owned())),
            connection_types: vec![v1::ConnectionType::Shell.into(), 77],
            description: "the \"office\"".to_owned(),
            position: 2,
            disabled: true,
            expire_time: Some(Timestamp { seconds: 1_900_000_000, nanos: 123_000_000 }),
            create_time: Some(Timestamp::default()),
            revision: 1 << 60,
            ..v1::Rule::default()
        }
    }

    #[test]
    fn message_is_written_in_its_canonical_form() {
        let expected = concat!(
            r#"{"name":"organizations/acme/rules/office","action":"ACTION_DENY","#,
            r#""addressGroup":"organizations/acme/addressGroups/office","#,
            r#""connectionTypes":["CONNECTION_TYPE_SHELL",77],"description":"the \"office\"","position":2,"#,
            r#""disabled":true,"expireTime":"2030-03-17T17:46:40.123Z","createTime":"1970-01-01T00:00:00Z","#,
            r#""revision":"1152921504606846976"}"#
        );
        assert_eq!(written(&rule()), expected);
        // What is there with its default value is told from what is not there.
        let gates = v1::ChangeGates { max_revocations: Some(0), ..Default::default() };
        assert_eq!(written(&gates), r#"{"maxRevocations":"0"}"#);
        let digest = v1::ObjectDigest { sha256: vec![0xfb, 0xff], ..Default::default() };
        assert_eq!(written(&digest), r#"{"sha256":"+/8="}"#);
        assert_eq!(written(&()), "{}");
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let list = v1::ListRulesResponse { rules: vec![rule()], etag: "e".to_owned(), ..Default::default() };
        assert_eq!(from_json::<v1::ListRulesResponse>(&written(&list)).unwrap(), list);
    }

    /// The hazard: a mistyped field is dropped, and its default taken.
    #[test]
    fn what_is_not_of_the_message_is_refused() {
        for wrong in [r#"{"disable":true}"#, r#"{"action":"deny"}"#, r#"{"expireTime":"tomorrow"}"#, "{} {}", "[]"] {
            assert!(from_json::<v1::Rule>(wrong).is_err(), "{wrong}");
        }
        assert!(serde_json::to_string(&to_json(&storage::AuditEntry::default())).is_err());
    }
}
