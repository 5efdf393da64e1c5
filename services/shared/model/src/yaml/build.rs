//! From the parser's events to JSON with places: anchors, aliases, merge keys.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::{ALIASED_MAX, DEPTH_MAX, Document, Error, Place, Places, error, field_path, scalar};

/// A value with the place where it begins.
#[derive(Clone)]
struct Node {
    place: Place,
    content: Content,
    /// Values in it, with itself.
    size: usize,
}

#[derive(Clone)]
enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Fields(Vec<Field>),
}

#[derive(Clone)]
struct Field {
    key: String,
    place: Place,
    node: Node,
}

struct Reader<'a> {
    source: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
}

pub fn parse(text: &str, source: &str) -> Result<Vec<Document>, Error> {
    let mut reader = Reader { source, parser: Parser::new_from_str(text), anchors: HashMap::new(), aliased: 0 };
    let mut documents = Vec::new();
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(_), _) => {
                let first = reader.next()?;
                let node = reader.node(first, 0)?;
                let mut places = HashMap::new();
                let start = node.place;
                let value = flatten(node, "", &mut places);
                if !value.is_null() {
                    documents.push(Document { value, source: source.to_owned(), start, places });
                }
            }
            _ => {}
        }
    }
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Error> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(problem)) => Err(error(self.source, place(problem.marker()), explained(problem.info()))),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, Error> {
        let at = place(&span.start);
        if depth > DEPTH_MAX {
            return Err(self.error(at, format!("values nest deeper than {DEPTH_MAX} levels")));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(at, &text, style, tag.as_deref())?;
                (Node { place: at, content: Content::Scalar(value), size: 1 }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(at, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.fields(at, depth)?, anchor),
            Event::Alias(id) => {
                let known = self.anchors.get(&id).cloned();
                let mut node = known.ok_or_else(|| self.error(at, "an alias may not stand inside its own anchor"))?;
                node.place = at;
                self.count(at, node.size)?;
                return Ok(node);
            }
            _ => return Err(self.error(at, "a value was expected")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, at: Place, size: usize) -> Result<(), Error> {
        self.aliased = self.aliased.saturating_add(size);
        if self.aliased > ALIASED_MAX {
            return Err(self.error(at, format!("aliases stand for more than {ALIASED_MAX} values")));
        }
        Ok(())
    }

    fn scalar(&self, at: Place, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Error> {
        let value = match tag {
            Some(tag) if tag.is_yaml_core_schema() => scalar::tagged(&tag.suffix, text),
            Some(tag) if tag.handle == "!" && tag.suffix.is_empty() => Ok(Value::String(text.to_owned())),
            _ if style == ScalarStyle::Plain => scalar::plain(text),
            _ => Ok(Value::String(text.to_owned())),
        };
        value.map_err(|problem| self.error(at, problem))
    }

    fn list(&mut self, at: Place, depth: usize) -> Result<Node, Error> {
        let (mut nodes, mut size) = (Vec::new(), 1);
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Node { place: at, content: Content::List(nodes), size }),
                event => {
                    let node = self.node(event, depth + 1)?;
                    size += node.size;
                    nodes.push(node);
                }
            }
        }
    }

    fn fields(&mut self, at: Place, depth: usize) -> Result<Node, Error> {
        let mut fields: Vec<Field> = Vec::new();
        let mut seen: HashSet<String> = HashSet::new();
        let mut merged: Vec<Field> = Vec::new();
        loop {
            let event = self.next()?;
            if matches!(event.0, Event::MappingEnd) {
                break;
            }
            let is_merge = matches!(&event.0, Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<");
            let key = self.node(event, depth + 1)?;
            let value = self.next()?;
            let node = self.node(value, depth + 1)?;
            if is_merge {
                self.merge(node, &mut merged)?;
                continue;
            }
            let name = match &key.content {
                Content::Scalar(value) => scalar::key(value),
                _ => None,
            };
            let name =
                name.ok_or_else(|| self.error(key.place, "a field's name must be text, a number or a boolean"))?;
            if !seen.insert(name.clone()) {
                return Err(self.error(key.place, format!("key {name:?} already set in map")));
            }
            fields.push(Field { key: name, place: key.place, node });
        }
        // What stands in the map itself wins over what is merged in; of that, the first wins.
        fields.extend(merged.into_iter().filter(|field| seen.insert(field.key.clone())));
        let size = 1 + fields.iter().map(|field| field.node.size).sum::<usize>();
        Ok(Node { place: at, content: Content::Fields(fields), size })
    }

    fn merge(&self, node: Node, merged: &mut Vec<Field>) -> Result<(), Error> {
        match node.content {
            Content::Fields(fields) => merged.extend(fields),
            Content::List(nodes) => {
                for node in nodes {
                    let Content::Fields(fields) = node.content else {
                        return Err(self.error(node.place, "map merge requires map or sequence of maps as the value"));
                    };
                    merged.extend(fields);
                }
            }
            Content::Scalar(_) => {
                return Err(self.error(node.place, "map merge requires map or sequence of maps as the value"));
            }
        }
        Ok(())
    }

    fn error(&self, at: Place, message: impl Into<String>) -> Error {
        error(self.source, at, message)
    }
}

fn flatten(node: Node, path: &str, places: &mut HashMap<String, Places>) -> Value {
    match node.content {
        Content::Scalar(value) => value,
        Content::List(nodes) => {
            let element = |(at, node): (usize, Node)| {
                let path = format!("{path}[{at}]");
                places.insert(path.clone(), Places { key: node.place, value: node.place });
                flatten(node, &path, places)
            };
            Value::Array(nodes.into_iter().enumerate().map(element).collect())
        }
        Content::Fields(fields) => {
            let mut map = Map::new();
            for field in fields {
                let path = field_path(path, &field.key);
                places.insert(path.clone(), Places { key: field.place, value: field.node.place });
                map.insert(field.key, flatten(field.node, &path, places));
            }
            Value::Object(map)
        }
    }
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}

/// The parser's words, where they would puzzle someone who indented with a tab.
fn explained(message: &str) -> String {
    if message.contains("tab") { format!("{message}: indent with spaces") } else { message.to_owned() }
}
