//! What an answer to a change is about.
//!
//! Invariant: the organization is taken from the answer, never from what was typed.
//! Not here: showing answers.

use super::names::organization_of;
use super::record::object_name;
use portcullis_proto::v1;

/// An answer to a change inside an organization.
pub(super) trait Answered {
    /// The full name of the organization; none where the answer does not tell it.
    fn organization(&self) -> Option<String>;
}

macro_rules! named {
    ($($message:ident . $name:ident),+) => {
        $(impl Answered for v1::$message {
            fn organization(&self) -> Option<String> {
                Some(organization_of(&self.$name))
            }
        })+
    };
}

named!(Rule.name, AddressGroup.name, Node.name, PolicyTest.name, Revision.name, ShadowPolicy.organization);

macro_rules! with_object {
    ($($message:ident . $object:ident),+) => {
        $(impl Answered for v1::$message {
            fn organization(&self) -> Option<String> {
                self.$object.as_ref().and_then(Answered::organization)
            }
        })+
    };
}

with_object!(PatchRangesResponse.address_group, AddAccessEntriesResponse.node, RemoveAccessEntriesResponse.node);

impl Answered for v1::ApplyPolicyResponse {
    fn organization(&self) -> Option<String> {
        let changed = self.changes.iter().find_map(|change| change.after.as_ref().or(change.before.as_ref()));
        changed.and_then(object_name).map(organization_of)
    }
}

impl Answered for v1::ListRulesResponse {
    fn organization(&self) -> Option<String> {
        self.rules.first().map(|rule| organization_of(&rule.name))
    }
}
