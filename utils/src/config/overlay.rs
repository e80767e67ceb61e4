//! Values laid over the defaults one by one, each with its origin.

use super::{Faults, Loaded, Validate};
use abi::error::excerpt;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, marker::PhantomData, path::Path};
use toml::{Table, Value};

/// In front of every variable that concerns us.
const PREFIX: &str = "GODWIT_";

pub(super) struct Overlay<T> {
    /// The defaults: which keys there are and which type each has.
    schema: Table,
    /// What has been set, without what is faulty.
    values: Table,
    origins: BTreeMap<String, String>,
    faults: Vec<String>,
    target: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned + Default + Validate> Overlay<T> {
    pub(super) fn new() -> Self {
        Self {
            schema: Table::try_from(T::default()).expect("the defaults are TOML"),
            values: Table::new(),
            origins: BTreeMap::new(),
            faults: Vec::new(),
            target: PhantomData,
        }
    }

    pub(super) fn file(&mut self, path: &Path) {
        let origin = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.faults.push(format!("{origin}: the file can't be read: {error}")),
        };
        match text.parse::<Table>() {
            Ok(table) => self.table(&origin, &mut Vec::new(), table),
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
                self.faults.push(format!("{origin}, line {line}: not TOML: {}", excerpt(error.message())));
            }
        }
    }

    fn table(&mut self, origin: &str, path: &mut Vec<String>, table: Table) {
        for (key, value) in table {
            path.push(key);
            match (find(&self.schema, path), value) {
                // A section, unless the schema has an empty one there: then its keys are up to whoever writes it.
                (Some(Value::Table(section)), Value::Table(table)) if !section.is_empty() => {
                    self.table(origin, path, table);
                }
                (_, value) => self.set(origin, path, value),
            }
            path.pop();
        }
    }

    pub(super) fn environment(&mut self, environment: &BTreeMap<String, String>) {
        for (variable, text) in environment {
            let Some(name) = variable.strip_prefix(PREFIX) else { continue };
            let path: Vec<_> = name.to_ascii_lowercase().split("__").map(str::to_owned).collect();
            // Variables of ours that are no setting (GODWIT_CONFIG), and those that Kubernetes makes for a service
            // called godwit-something, have no "__".
            if path.len() == 1 && !self.schema.contains_key(&path[0]) {
                continue;
            }
            self.text(variable, &path, text);
        }
    }

    pub(super) fn assignment(&mut self, origin: &str, assignment: &str) {
        match assignment.split_once('=') {
            Some((key, text)) => {
                let path: Vec<_> = key.trim().split('.').map(str::to_owned).collect();
                self.text(origin, &path, text);
            }
            None => {
                self.faults.push(format!("{origin}: '{}' must be section.key=value", excerpt(assignment)))
            }
        }
    }

    fn text(&mut self, origin: &str, path: &[String], text: &str) {
        let value = match find(&self.schema, path) {
            Some(default) => parse(default, text),
            None => Value::String(text.to_owned()),
        };
        self.set(origin, path, value);
    }

    fn set(&mut self, origin: &str, path: &[String], value: Value) {
        let key = path.join(".");
        match self.check(path, &value) {
            Ok(()) => {
                insert(&mut self.values, path, value);
                self.origins.insert(key, origin.to_owned());
            }
            Err(fault) => self.faults.push(format!("{}: {}: {fault}", excerpt(origin), excerpt(key))),
        }
    }

    fn check(&self, path: &[String], value: &Value) -> Result<(), String> {
        let Some(default) = find(&self.schema, path) else { return Err(self.unknown(path)) };
        if default.is_table() && !value.is_table() {
            return Err("is a section; set a key in it".to_owned());
        }
        let mut alone = Table::new();
        insert(&mut alone, path, value.clone());
        alone.try_into::<T>().map(|_| ()).map_err(|error| match example(default) {
            // The deserializer would show the value, which may be a secret.
            _ if default.is_str() && !value.is_str() => "must be a text in quotes".to_owned(),
            _ if default.is_array() && !value.is_array() => "must be a list".to_owned(),
            Some(example) => format!("{}; the default is {example}", excerpt(error.message())),
            None => excerpt(error.message()),
        })
    }

    fn unknown(&self, path: &[String]) -> String {
        let known = (0..path.len()).rev().find_map(|depth| match &path[..depth] {
            [] => Some(("here", &self.schema)),
            parent => find(&self.schema, parent)?.as_table().map(|table| ("in this section", table)),
        });
        let (place, table) = known.unwrap_or(("here", &self.schema));
        let keys: Vec<_> = table.keys().map(String::as_str).collect();
        format!("there is no such key; {place} there are {}", keys.join(", "))
    }

    pub(super) fn finish(mut self, check: impl FnOnce(&T) -> Vec<String>) -> Result<Loaded<T>, Faults> {
        match self.values.try_into::<T>() {
            Ok(config) => {
                let mut together = Vec::new();
                config.validate(&mut together);
                together.extend(check(&config));
                self.faults.extend(together.into_iter().map(|fault| located(&self.origins, fault)));
                if self.faults.is_empty() {
                    return Ok(Loaded { config, origins: self.origins });
                }
            }
            Err(error) => self.faults.push(format!("configuration: {}", error.message())),
        }
        Err(Faults(self.faults))
    }
}

/// Puts in front of a fault where its key was set.
fn located(origins: &BTreeMap<String, String>, fault: String) -> String {
    let key = fault.split([':', '[']).next().unwrap_or_default();
    let origin = origins.get(key).map_or("configuration", String::as_str);
    format!("{origin}: {fault}")
}

fn find<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (last, sections) = path.split_last()?;
    let section = sections.iter().try_fold(table, |table, key| table.get(key)?.as_table())?;
    section.get(last)
}

fn insert(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            table.insert(last.clone(), value);
        }
        [section, rest @ ..] => {
            let section = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(section) = section {
                insert(section, rest, value);
            }
        }
    }
}

/// Reads text as the type of the default. What can't be read stays text, and is refused with a sentence later.
fn parse(default: &Value, text: &str) -> Value {
    let plain = text.trim();
    let text = || Value::String(text.to_owned());
    match default {
        Value::Integer(_) => plain.replace('_', "").parse().map_or_else(|_| text(), Value::Integer),
        Value::Float(_) => plain.parse().map_or_else(|_| text(), Value::Float),
        Value::Boolean(_) => plain.parse().map_or_else(|_| text(), Value::Boolean),
        Value::Array(_) if plain.is_empty() => Value::Array(Vec::new()),
        Value::Array(_) if plain.starts_with('[') => parse_list(plain).unwrap_or_else(text),
        Value::Array(default) => {
            let item = default.first().cloned().unwrap_or_else(|| Value::String(String::new()));
            Value::Array(plain.split(',').map(|part| parse(&item, part.trim())).collect())
        }
        _ => text(),
    }
}

fn parse_list(text: &str) -> Option<Value> {
    format!("list = {text}").parse::<Table>().ok()?.remove("list")
}

/// What a value looks like, for whoever wrote one that can't be read.
fn example(default: &Value) -> Option<String> {
    match default {
        Value::Table(_) => None,
        Value::String(text) if text.is_empty() => None,
        value => Some(value.to_string()),
    }
}
