//! A YAML text as a tree with lines, within limits: what an alias repeats counts each time.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::limits::FILE_BYTES_MAX;

/// Nodes of one text, repeated ones counted.
pub(crate) const NODES_MAX: usize = 20_000;
/// Lists and mappings inside one another.
pub(crate) const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// From 1; of its key, where it has one.
    pub(crate) line: usize,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    /// Numbers and truths too, as they were written.
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Null | Value::Text(_) => 0,
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node.size()).sum(),
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn entries(&self) -> &[(String, Self)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(known, _)| known == key).map(|(_, node)| node)
    }

    /// As the report shows it.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            Value::Null => String::new(),
            Value::Text(text) => text.clone(),
            Value::List(items) => items.iter().map(Self::shown).collect::<Vec<_>>().join(" "),
            Value::Map(entries) => {
                let one = |(key, node): &(String, Self)| format!("{key}: {}", node.shown());
                entries.iter().map(one).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

/// What is open: a list, or a mapping with the key that waits for its value.
struct Open {
    line: usize,
    anchor: usize,
    value: Value,
    key: Option<(String, usize)>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

/// The one document of a text.
pub(crate) fn read(text: &str) -> Result<Node, String> {
    if text.len() > FILE_BYTES_MAX {
        return Err(format!("a file has at most {FILE_BYTES_MAX} bytes, this one has {}", text.len()));
    }
    let mut builder = Builder::default();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let place = error.marker();
            format!("line {}: it is no YAML: {}", place.line(), error.info())
        })?;
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
            if documents > 1 {
                return Err(format!("line {}: a compose file is one document", span.start.line()));
            }
        }
        builder.take(event, span).map_err(|why| format!("line {}: {why}", span.start.line()))?;
    }
    builder.root.ok_or_else(|| "it is empty".to_owned())
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), String> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let value = match text.as_ref() {
                    "" | "~" | "null" | "Null" | "NULL" if plain => Value::Null,
                    text => Value::Text(text.to_owned()),
                };
                self.put(Node { line, value }, anchor)
            }
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, Value::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.begin(line, anchor, Value::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Err("something ends that did not begin".to_owned());
                };
                self.put(Node { line: open.line, value: merged(open.value) }, open.anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err("an alias of what is not there yet".to_owned());
                };
                self.count(node.size())?;
                self.put(node, 0)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES_MAX { Err(format!("at most {NODES_MAX} values are read")) } else { Ok(()) }
    }

    fn begin(&mut self, line: usize, anchor: usize, value: Value) -> Result<(), String> {
        if self.open.len() == DEPTH_MAX {
            return Err(format!("lists and mappings stand at most {DEPTH_MAX} deep"));
        }
        self.open.push(Open { line, anchor, value, key: None });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        self.count(1)?;
        if anchor > 0 {
            self.count(node.size())?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut open.value, open.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((key, line))) => {
                if key != "<<" && entries.iter().any(|(known, _)| *known == key) {
                    return Err(format!("{key:?} stands twice"));
                }
                entries.push((key, Node { line, ..node }));
            }
            (Value::Map(_), None) => match node.value {
                Value::Text(text) => open.key = Some((text, node.line)),
                Value::Null => open.key = Some((String::new(), node.line)),
                _ => return Err("a key is a text".to_owned()),
            },
            _ => {}
        }
        Ok(())
    }
}

/// With `<<` put in: what a mapping says itself wins.
fn merged(value: Value) -> Value {
    let Value::Map(entries) = value else { return value };
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key == "<<");
    for (_, node) in merges {
        let sources = match node.value {
            Value::List(items) => items,
            _ => vec![node],
        };
        for (key, value) in sources.iter().flat_map(|source| source.entries()) {
            if !own.iter().any(|(known, _)| known == key) {
                own.push((key.clone(), value.clone()));
            }
        }
    }
    Value::Map(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_becomes_a_tree_with_lines() {
        let tree = read("a: 1\nb:\n  - x\n  - 'y z'\nc: ~\nd: ''\n").unwrap();
        assert_eq!(tree.get("a").unwrap().text(), Some("1"));
        assert_eq!(tree.get("b").unwrap().shown(), "x y z");
        assert_eq!(tree.get("c").unwrap().value, Value::Null);
        assert_eq!((tree.get("d").unwrap().text(), tree.get("d").unwrap().line), (Some(""), 6));
    }

    #[test]
    fn anchors_and_merges_are_put_in() {
        let tree = read("x: &x\n  a: 1\n  b: 2\ny:\n  <<: *x\n  b: 3\n").unwrap();
        assert_eq!(tree.get("y").unwrap().shown(), "b: 3, a: 1");
    }

    #[test]
    fn what_grows_without_end_is_refused() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, before) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"), ("f", "e")] {
            let row = vec![format!("*{before}"); 10].join(", ");
            bomb.push_str(&format!("{name}: &{name} [{row}]\n"));
        }
        assert!(read(&bomb).unwrap_err().contains("at most"));
        // What repeats counts where nothing around it has an anchor, too.
        let repeated = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(1000), "*a,".repeat(30));
        assert!(read(&repeated).unwrap_err().contains("at most"));
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&deep(DEPTH_MAX)).is_ok());
        assert!(read(&deep(DEPTH_MAX + 1)).unwrap_err().contains("deep"));
        // The list itself is a node too.
        let wide = |nodes: usize| format!("[{}]", "x,".repeat(nodes - 1));
        assert!(read(&wide(NODES_MAX)).is_ok());
        assert!(read(&wide(NODES_MAX + 1)).is_err());
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line() {
        for wrong in ["a: [", "a: 1\na: 2\n", "--- 1\n--- 2\n", "", "a: *x\n", "? [a]\n: b\n"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read("a: 1\na: 2\n").unwrap_err().starts_with("line 2"));
    }
}
