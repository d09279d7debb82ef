//! Policy tests in messages.
//!
//! Invariant: an expected decision that is unspecified or unknown is a fault, and so is an endpoint of another
//! organization.
//! Not here: what follows from a test that fails (`policy::gates`).

use super::decision::{to_connection_type, to_decision};
use super::names::optional_id;
use super::reader::Reader;
use super::to_time;
use crate::policy::decision::Decision;
use crate::policy::document::TestSpec;
use crate::policy::name::{Id, Name, NodePath};
use crate::policy::policy_test::PolicyTest;
use crate::policy::time::Timestamp;
use crate::proto::v1;

/// Reads a test of an organization. `field` is its path in the request, `id` its id with the path of that, `index` its
/// index in the request's list, if there is one.
pub(in crate::api) fn read_test(
    read: &mut Reader,
    field: &str,
    organization: Option<&Id>,
    (id_field, id): (&str, &str),
    (index, test): (usize, v1::PolicyTest),
) -> Option<TestSpec> {
    let v1::PolicyTest {
        name: _,
        ip,
        connection_type,
        endpoint,
        expected_decision,
        description,
        actual_decision: _,
        end_time,
        fail_time: _,
        fail_time_unknown: _,
        ended: _,
    } = test;
    let id = optional_id(read, id_field, id);
    let address = read.address(&format!("{field}.ip"), &ip);
    let connection_type = read.connection_type(&format!("{field}.connection_type"), connection_type);
    match NodePath::parse(&endpoint) {
        Ok(path) if organization.is_some_and(|organization| organization.as_str() != path.organization) => {
            let description = format!("`{endpoint}` belongs to another organization: name a node of the same one");
            read.add(format!("{field}.endpoint"), description);
        }
        Ok(_) => {}
        Err(error) => read.add(format!("{field}.endpoint"), error.to_string()),
    }
    let expected = read.decision(&format!("{field}.expected_decision"), expected_decision);
    let description = read.description(&format!("{field}.description"), &description);
    let end_time = end_time.and_then(|time| read.time(&format!("{field}.end_time"), time));
    Some(TestSpec {
        index,
        id,
        address: address?,
        connection_type: connection_type?,
        endpoint: endpoint.into(),
        expected: expected?,
        description,
        end_time,
    })
}

/// What the policy decides about a test's connection.
pub(in crate::api) struct Judged {
    /// What it decides now.
    pub(in crate::api) actual: Decision,
    /// The first moment from now on at which the test fails.
    pub(in crate::api) fail_time: Option<Timestamp>,
    /// Whether it takes too long to find out if it fails later.
    pub(in crate::api) is_later_unknown: bool,
    /// Whether the test has ended.
    pub(in crate::api) ended: bool,
}

/// A test as the API shows it. `judged` is what the policy decides, if it was computed.
pub(in crate::api) fn to_test(organization: &str, test: &PolicyTest, judged: Option<&Judged>) -> v1::PolicyTest {
    let PolicyTest { id, address, connection_type, endpoint, expected, description, end_time } = test;
    v1::PolicyTest {
        name: Name::policy_test(organization, id).to_string(),
        ip: address.to_string(),
        connection_type: to_connection_type(*connection_type).into(),
        endpoint: endpoint.to_string(),
        expected_decision: to_decision(*expected).into(),
        description: description.to_string(),
        actual_decision: judged.map_or(v1::Decision::Unspecified, |judged| to_decision(judged.actual)).into(),
        end_time: end_time.map(to_time),
        fail_time: judged.and_then(|judged| judged.fail_time).map(to_time),
        ended: judged.is_some_and(|judged| judged.ended),
        fail_time_unknown: judged.is_some_and(|judged| judged.is_later_unknown),
    }
}
