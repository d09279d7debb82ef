//! Builds the tree from the events of the YAML parser.
//!
//! Invariant: no file makes it recurse, or keep more values than are allowed.
//! Not here: the tree (`mod`), the words for syntax errors (`syntax`).

use std::borrow::Cow;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StructureStyle, Tag, options};

use super::{Document, Entry, Map, Node, Position, Value, syntax};
use crate::policy::faults::Faults;

/// The most values of a file. The largest policy that a request can carry has some two million.
const VALUES_MAX: usize = 4_000_000;

/// The deepest nesting. A policy needs six levels.
const DEPTH_MAX: usize = 32;

/// A collection that is not complete yet.
struct Open {
    at: Position,
    /// Whether it stands between brackets.
    is_flow: bool,
    value: Building,
}

enum Building {
    List(Vec<Node>),
    Map { map: Map, key: Option<(Position, Option<Box<str>>)> },
}

struct Builder<'a> {
    open: Vec<Open>,
    root: Option<Node>,
    values: usize,
    is_too_large: bool,
    faults: &'a mut Faults,
}

/// Whether to read on.
enum Next {
    Read,
    Stop,
}

/// How often a file is read again, and how many bytes in all.
const REPAIRS_MAX: usize = 100;
const REPAIRED_BYTES_MAX: usize = 64 << 20;

/// Reads a file. Its faults of syntax are noted.
///
/// A fault that takes one character does not hide the rest of the file: the character is replaced, in memory, and the file
/// is read again.
pub(in crate::policy) fn parse(text: &str, faults: &mut Faults) -> Document {
    let mut text = Cow::Borrowed(text);
    let repairs_max = REPAIRS_MAX.min(REPAIRED_BYTES_MAX / text.len().max(1));
    let mut repaired = Vec::new();
    loop {
        let mut found = Faults::default();
        let attempt = attempt(&text, &mut found);
        let Attempt { document, error, open } = attempt;
        if let Some((at, message, repair)) = error {
            let mended = repair.filter(|_| repaired.len() < repairs_max).and_then(|repair| repair.mend(&text));
            repaired.push((at, message));
            if let Some(mended) = mended {
                text = Cow::Owned(mended);
                continue;
            }
        }
        for (at, message) in repaired {
            found.add_unreadable(at, message);
        }
        for at in open {
            found.mute(at);
        }
        *faults = found;
        return document;
    }
}

/// What came of reading once.
struct Attempt {
    document: Document,
    /// The error of syntax that ended it.
    error: Option<(Position, String, Option<syntax::Repair>)>,
    /// The places of the brackets that are open there: what they hold is not known.
    open: Vec<Position>,
}

fn attempt(text: &str, faults: &mut Faults) -> Attempt {
    let mut builder = Builder { open: Vec::new(), root: None, values: 0, is_too_large: false, faults };
    let (mut cut, mut wrong) = (None, None);
    for event in Parser::new_from_str_with_options(text, parser_options()) {
        match event {
            Ok((event, span)) => match builder.take(event, &span) {
                Next::Read => {}
                Next::Stop => {
                    cut = Some(position(&span));
                    break;
                }
            },
            Err(error) => {
                let bracket = builder.open.iter().find(|open| open.is_flow).map(|open| open.at);
                let explained = syntax::explain(text, &error, bracket);
                cut = Some(explained.0);
                wrong = Some(explained);
                break;
            }
        }
    }
    if builder.is_too_large {
        // Nobody wants to read what else is wrong with it.
        let root = Node { at: Position::default(), value: Value::Unreadable };
        return Attempt { document: Document { root, is_cut: true }, error: None, open: Vec::new() };
    }
    let open = builder.open.iter().filter(|open| open.is_flow).map(|open| open.at).collect();
    let mut root = builder.finish();
    if let Some(at) = cut {
        cut_end(&mut root, at);
    }
    Attempt { document: Document { root, is_cut: cut.is_some() }, error: wrong, open }
}

fn parser_options() -> Options {
    options! {
        disallow_directives: true,
        emit_unresolved_aliases: true,
        emit_anchor_events: true,
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    }
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Next {
        let at = position(span);
        match event {
            Event::Scalar(text, style, _, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                let quoted = style != ScalarStyle::Plain;
                let is_nothing = !quoted && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if is_nothing && tag.is_none() {
                    self.nothing(&text)
                } else {
                    Value::Scalar { text: text.into(), quoted }
                };
                return self.node(Node { at, value });
            }
            Event::SequenceStart(style, _, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                self.open.push(Open { at, is_flow: style == StructureStyle::Flow, value: Building::List(Vec::new()) });
            }
            Event::MappingStart(style, _, tag) => {
                self.refuse_tag(tag.as_deref(), span);
                let value = Building::Map { map: Map::default(), key: None };
                self.open.push(Open { at, is_flow: style == StructureStyle::Flow, value });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    return self.node(open.closed(false));
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let message = "a text that begins with `*` refers to an anchor, which a policy file has none of: quote \
                               the text, or write the value out";
                self.faults.add(at, "", message);
                return self.node(Node { at, value: Value::Unreadable });
            }
            Event::Anchor(..) => {
                let message = "`&` names an anchor, which a policy file has none of: leave it out, or quote a text that \
                               begins with `&`";
                self.faults.add(at, "", message);
            }
            Event::DocumentStart(..) if self.root.is_some() => {
                self.faults.add(at, "", "a second document begins here: keep one policy in a file");
                return Next::Stop;
            }
            // Streams and documents that begin and end hold no values.
            _ => {}
        }
        Next::Read
    }

    /// A plain scalar without a value. As a key it is a text like any other.
    fn nothing(&self, text: &str) -> Value {
        let is_key = matches!(self.open.last(), Some(Open { value: Building::Map { key: None, .. }, .. }));
        if is_key { Value::Scalar { text: text.into(), quoted: false } } else { Value::Nothing }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, span: &Span) {
        if tag.is_some() {
            let at = span.tag_start().map_or_else(|| position(span), |marker| Position::from(&marker));
            let message = "`!` begins a tag, which a policy file has none of: leave it out, or quote a text that begins \
                           with `!`";
            self.faults.add(at, "", message);
        }
    }

    /// Puts a complete value where it belongs.
    fn node(&mut self, node: Node) -> Next {
        self.values += 1;
        if self.values > VALUES_MAX {
            let message = format!(
                "the file has more than {VALUES_MAX} values: load large groups by themselves, with `portcullis groups \
                 create --file`"
            );
            self.faults.add(node.at, "", message);
            self.is_too_large = true;
            return Next::Stop;
        }
        match self.open.last_mut().map(|open| &mut open.value) {
            None => self.root = Some(node),
            Some(Building::List(items)) => items.push(node),
            Some(Building::Map { map, key: key @ None }) => {
                let name = match node.value {
                    Value::Scalar { text, quoted: false } if matches!(&*text, "" | "~") => {
                        let message = "a key is missing before this place: write `key: value`, without a `?`";
                        self.faults.add(node.at, "", message);
                        None
                    }
                    Value::Scalar { text, .. } => Some(text),
                    Value::Unreadable => None,
                    Value::Nothing | Value::List(_) | Value::Map(_) => {
                        self.faults.add(node.at, "", "a key is a text, not a list or an object: check the brackets");
                        None
                    }
                };
                // Nobody knows which key was meant.
                map.is_cut |= name.is_none();
                *key = Some((node.at, name));
            }
            Some(Building::Map { map, key }) => {
                if let Some((at, Some(key))) = key.take() {
                    map.entries.push(Entry { at, key, value: node });
                }
            }
        }
        Next::Read
    }

    /// The tree. Collections that are still open are closed, and marked as cut.
    fn finish(mut self) -> Node {
        while let Some(open) = self.open.pop() {
            let node = open.closed(true);
            match self.open.last_mut().map(|outer| &mut outer.value) {
                None => self.root = Some(node),
                Some(Building::List(items)) => items.push(node),
                Some(Building::Map { map, key }) => {
                    if let Some((at, Some(key))) = key.take() {
                        map.entries.push(Entry { at, key, value: node });
                    }
                }
            }
        }
        self.root.unwrap_or(Node { at: Position { line: 1, column: 1 }, value: Value::Nothing })
    }
}

/// Marks what stood last before the place where reading ended: more may belong to it.
fn cut_end(root: &mut Node, end: Position) {
    let mut last = Some(root);
    while let Some(node) = last {
        let is_partial = matches!(node.value, Value::Scalar { .. }) && node.at.line == end.line;
        if is_partial {
            node.value = Value::Unreadable;
        }
        last = match &mut node.value {
            Value::List(items) => items.last_mut(),
            Value::Map(map) => {
                map.is_cut = true;
                map.entries.last_mut().map(|entry| &mut entry.value)
            }
            Value::Nothing | Value::Scalar { .. } | Value::Unreadable => None,
        };
    }
}

impl Open {
    fn closed(self, is_cut: bool) -> Node {
        let value = match self.value {
            Building::List(items) => Value::List(items),
            Building::Map { map, .. } => Value::Map(Map { is_cut: is_cut || map.is_cut, ..map }),
        };
        Node { at: self.at, value }
    }
}

fn position(span: &Span) -> Position {
    Position::from(&span.start)
}
