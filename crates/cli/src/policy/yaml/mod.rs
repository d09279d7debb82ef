//! YAML as a tree of values that know where they stand.
//!
//! What a policy file has no use for is refused here: anchors and aliases, tags, directives, a second document. So a small
//! file never stands for a large policy, and every value is written where it counts.
//!
//! Invariant: a tree is bounded, in its depth and in the number of its values, whatever the file holds. What was read
//! before a syntax error is kept, and marked as cut.
//! Not here: which keys and values a policy has (`schema`), the words for syntax errors (`syntax`).

mod build;
mod syntax;

pub(super) use build::parse;
pub(super) use syntax::{ends_in_colon, lacks_space, split_key};

/// A place in a file. Both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// A value, and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

/// What was written.
#[derive(Debug)]
pub(super) enum Value {
    /// No value, or `null`.
    Nothing,
    /// A text, a number or a word. Quoted ones are always texts.
    Scalar { text: Box<str>, quoted: bool },
    /// Items in their order.
    List(Vec<Node>),
    /// Keys with their values.
    Map(Map),
    /// Something that is refused already.
    Unreadable,
}

/// Keys with their values, in the order of the file; a key may be there twice.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) entries: Vec<Entry>,
    /// Whether the file could not be read to the end of it, so that keys may be missing.
    pub(super) is_cut: bool,
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: Position,
    pub(super) key: Box<str>,
    pub(super) value: Node,
}

/// A file as a tree.
pub(super) struct Document {
    /// The value of the file; `Nothing` for an empty one.
    pub(super) root: Node,
    /// Whether the file was not read to its end.
    pub(super) is_cut: bool,
}

impl From<&granit_parser::Marker> for Position {
    /// The parser counts columns from 0.
    fn from(marker: &granit_parser::Marker) -> Self {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
    }
}

impl Map {
    /// The value of a key: the first, where the key is there twice.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// A key with its value: the first, where the key is there twice.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| *entry.key == *key)
    }

    /// The text of a key.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::text)
    }

    /// The items of a key; none if there is no list.
    pub(super) fn items(&self, key: &str) -> &[Node] {
        self.get(key).map_or(&[], Node::items)
    }

    /// Whether a key is `true`.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Node::flag)
    }
}

impl Node {
    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Scalar { text, .. } = &self.value { Some(text) } else { None }
    }

    /// The items of a list; none of anything else.
    pub(super) fn items(&self) -> &[Node] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    /// The keys of a map.
    pub(super) fn map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    /// `true` or `false`, which are not quoted.
    pub(super) fn flag(&self) -> Option<bool> {
        match &self.value {
            Value::Scalar { text, quoted: false } => match &**text {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}
