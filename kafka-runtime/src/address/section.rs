//! Addresses in configuration files: text, or a section whose keys are the options.

use super::raw::{Endpoint, RawAddress};
use super::{Address, parse};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = match Node::deserialize(deserializer)? {
            Node::Value(text) => parse::address(&text),
            Node::List(_) => Err("an address is text or a section".to_owned()),
            Node::Table(table) => section(table),
        };
        Self::from_raw(raw.map_err(D::Error::custom)?).map_err(D::Error::custom)
    }
}

/// A value of a configuration file.
enum Node {
    Value(String),
    List(Vec<String>),
    Table(Vec<(String, Node)>),
}

fn section(table: Vec<(String, Node)>) -> Result<RawAddress, String> {
    let (mut brokers, mut folder, mut errors, mut options) = (None, None, Vec::new(), Vec::new());
    for (name, node) in table {
        match (name.as_str(), node) {
            ("brokers", Node::Value(text)) => brokers = Some(text.split(',').map(str::to_owned).collect()),
            ("brokers", Node::List(list)) => brokers = Some(list),
            ("folder", Node::Value(text)) => folder = Some(text),
            (_, node) => flatten(name, node, &mut options),
        }
    }
    let endpoint = match (brokers, folder) {
        (Some(brokers), None) => {
            errors.extend(parse::check_brokers(&brokers));
            Endpoint::Kafka { brokers }
        }
        (None, Some(folder)) => {
            if folder.is_empty() {
                errors.push("`folder` must not be empty".into());
            }
            Endpoint::Log { folder: folder.into() }
        }
        _ => return Err("an address has either `brokers` (Kafka) or `folder` (the embedded log)".into()),
    };
    Ok(RawAddress { endpoint, options, errors })
}

/// Turns nested tables into names with dots.
fn flatten(name: String, node: Node, options: &mut Vec<(String, String)>) {
    match node {
        Node::Value(text) => options.push((name, text)),
        Node::List(list) => options.push((name, list.join(","))),
        Node::Table(table) => {
            table.into_iter().for_each(|(inner, node)| flatten(format!("{name}.{inner}"), node, options));
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true or false, a list of those, or a section")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Value(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Value(flag.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Value(number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Value(number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Value(number.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            let Node::Value(text) = item else {
                return Err(A::Error::custom("a list holds text, numbers, true or false"));
            };
            list.push(text);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(Node::Table(table))
    }
}
