//! Whether a single value is what it must be, and what to write instead.
//!
//! Invariant: what passes here becomes a field of a request without a loss.
//! Not here: keys, lists and objects (`walk`), what values mean together (`across`).

use portcullis_policy::address::{Address, Range};
use portcullis_policy::name::{Id, NameError, NodePath};
use portcullis_policy::time::Timestamp;

use super::faults::shown;
use super::schema::{Kind, ORGANIZATION};
use super::yaml::{Node, Value};
use crate::names::{OrganizationArgs, organization};
use crate::times::parse_time;

/// Checks a value that is neither a list nor an object.
pub(super) fn check(node: &Node, kind: &Kind, names: &OrganizationArgs) -> Result<(), String> {
    let Value::Scalar { text, quoted } = &node.value else {
        return Err(format!("is a list or an object: write {}", what(kind)));
    };
    match kind {
        Kind::Flag if node.flag().is_some() => Ok(()),
        Kind::Flag if *quoted => Err("is a text: write `true` or `false` without quotes".to_owned()),
        Kind::Flag => Err(format!("{} is not `true` or `false`", shown(text))),
        Kind::Count => count(text, *quoted),
        Kind::Word(words) => word(text, words),
        Kind::Range => text.parse().map(|_: Range| ()).map_err(|error| error.to_string()),
        Kind::Address => text.parse().map(|_: Address| ()).map_err(|error| error.to_string()),
        Kind::Time => time(text),
        Kind::Id(collection) => id(text, collection, names),
        Kind::Node => node_name(text, names),
        Kind::Organization => of_organization(text, names),
        // How long a text may be, the server knows.
        Kind::Text | Kind::List(..) | Kind::Object(_) => Ok(()),
    }
}

/// What a kind is, for messages.
pub(super) fn what(kind: &Kind) -> String {
    match kind {
        Kind::Text => "a text".to_owned(),
        Kind::Flag => "`true` or `false`".to_owned(),
        Kind::Count => "a number from 0 on".to_owned(),
        Kind::Word(words) => one_of(words),
        Kind::Organization => "the id of the organization".to_owned(),
        Kind::Id(_) => "an id".to_owned(),
        Kind::Node => "`organization`, or a name such as `projects/web`".to_owned(),
        Kind::Range => "an address, a range in CIDR notation, or `any`".to_owned(),
        Kind::Address => "an address".to_owned(),
        Kind::Time => "a time such as `2030-01-31T18:00:00Z`".to_owned(),
        Kind::List(item, _) => format!("a list, each item of which is {}", what(item)),
        Kind::Object(object) => object.what.to_owned(),
    }
}

/// The word that a wrong one is meant for, if one is near.
pub(super) fn nearest<'a>(given: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long word is no mistake in writing a short one, and is costly to compare.
    if given.len() > 32 {
        return None;
    }
    let distance = |word: &str| strsim::damerau_levenshtein(&given.to_lowercase(), word);
    let near = words.into_iter().map(|word| (distance(word), word)).min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, word)| *distance <= 2 && *distance < word.len()).map(|(_, word)| word)
}

fn one_of(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, [])) => format!("`{last}`"),
        Some((last, others)) => {
            let others: Vec<_> = others.iter().map(|word| format!("`{word}`")).collect();
            format!("{} or `{last}`", others.join(", "))
        }
        None => String::new(),
    }
}

fn word(text: &str, words: &[&str]) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    let given = shown(text);
    Err(match nearest(text, words.iter().copied()) {
        Some(near) => format!("{given} is not {}: did you mean `{near}`?", one_of(words)),
        None => format!("{given} is not {}", one_of(words)),
    })
}

fn count(text: &str, quoted: bool) -> Result<(), String> {
    if quoted {
        return Err("is a text: write the number without quotes".to_owned());
    }
    match text.parse::<i64>() {
        Ok(0..) => Ok(()),
        Ok(_) => Err(format!("{} is negative: write 0 or more", shown(text))),
        Err(_) => Err(format!("{} is not a number: write 0 or more", shown(text))),
    }
}

fn time(text: &str) -> Result<(), String> {
    let time = parse_time(text).map_err(|advice| format!("{} is not a time: {advice}", shown(text)))?;
    let of_core = u32::try_from(time.nanos).ok().and_then(|nanos| Timestamp::new(time.seconds, nanos));
    of_core.map(|_| ()).ok_or_else(|| format!("{} is not a time between the years 1 and 9999", shown(text)))
}

/// An id, or the full name of something that is directly below the organization.
fn id(text: &str, collection: &str, names: &OrganizationArgs) -> Result<(), String> {
    let id = match text.rsplit_once('/') {
        None => text,
        Some((above, id)) if above == format!("{}/{collection}", names.name()) => id,
        Some(_) => {
            return Err(format!(
                "{} is not an id: write the part behind `{}/{collection}/`",
                shown(text),
                names.name()
            ));
        }
    };
    if id.is_empty() {
        return Err("is empty: write an id".to_owned());
    }
    Id::parse(id).map(|_| ()).map_err(|error| error.to_string())
}

/// Whether a text is the name of a node.
pub(super) fn is_node(given: &str, names: &OrganizationArgs) -> bool {
    node_name(given, names).is_ok()
}

/// Whether a text is the id, or the full name, of what may be in a collection of the organization.
pub(super) fn is_id(text: &str, collection: &str, names: &OrganizationArgs) -> bool {
    id(text, collection, names).is_ok()
}

/// The full name of what is in a collection of the organization.
pub(super) fn full_id(given: &str, collection: &str, names: &OrganizationArgs) -> String {
    if given.contains('/') { given.to_owned() } else { format!("{}/{collection}/{given}", names.name()) }
}

/// The full name of a node of the file.
pub(super) fn full_name(given: &str, names: &OrganizationArgs) -> String {
    match given {
        ORGANIZATION => names.name(),
        _ if given.starts_with("organizations/") => given.to_owned(),
        _ => format!("{}/{given}", names.name()),
    }
}

fn node_name(text: &str, names: &OrganizationArgs) -> Result<(), String> {
    let (name, own) = (full_name(text, names), names.name());
    match NodePath::parse(&name) {
        Ok(_) if name == own || name.starts_with(&format!("{own}/")) => Ok(()),
        Ok(_) => Err(format!("{} belongs to another organization than `{own}`", shown(text))),
        Err(NameError::Id(id)) => Err(NameError::Id(id).to_string()),
        Err(_) => Err(format!(
            "{} is not a node of an organization: write `organization`, or a name such as `projects/web/workspaces/main`",
            shown(text)
        )),
    }
}

fn of_organization(text: &str, names: &OrganizationArgs) -> Result<(), String> {
    let (given, own) = (organization(text), names.name());
    if given == own {
        return Ok(());
    }
    Err(format!("the file is for {}, not for `{own}`: name the organization with `--organization`", shown(&given)))
}
