//! Applies values to the defaults one by one and remembers the origin of each.

use super::{ConfigErrors, Loaded, Validate, names};
use abi::error::excerpt;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, marker::PhantomData, path::Path};
use toml::{Table, Value};

pub(super) struct Overlay<T> {
    /// The defaults. They define the keys and the type of each.
    schema: Table,
    /// The valid values that were set.
    values: Table,
    origins: BTreeMap<String, String>,
    errors: Vec<String>,
    warnings: Vec<String>,
    target: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned + Default + Validate> Overlay<T> {
    pub(super) fn new() -> Self {
        Self {
            schema: Table::try_from(T::default()).expect("the defaults are TOML"),
            values: Table::new(),
            origins: BTreeMap::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            target: PhantomData,
        }
    }

    pub(super) fn add_file(&mut self, path: &Path) {
        let origin = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.errors.push(format!("{origin}: cannot read the file: {error}")),
        };
        match text.parse::<Table>() {
            Ok(table) => self.add_table(&origin, &mut Vec::new(), table),
            Err(error) => {
                let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
                self.errors.push(format!("{origin}, line {line}: not TOML: {}", excerpt(error.message())));
            }
        }
    }

    fn add_table(&mut self, origin: &str, path: &mut Vec<String>, table: Table) {
        for (key, value) in table {
            path.push(key);
            match (find(&self.schema, path), value) {
                // An empty table in the schema is not a section but a value: a map with free keys.
                (Some(Value::Table(section)), Value::Table(table)) if !section.is_empty() => {
                    self.add_table(origin, path, table);
                }
                (_, value) => self.set(origin, path, value),
            }
            path.pop();
        }
    }

    pub(super) fn add_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (variable, text) in environment {
            let Some(name) = variable.strip_prefix(names::PREFIX) else { continue };
            let path: Vec<_> = name.to_ascii_lowercase().split("__").map(str::to_owned).collect();
            // A name without "__" may belong to another program, so it is no error.
            if path.len() > 1 || self.schema.contains_key(&path[0]) {
                self.set_text(variable, &path, text);
            } else if !names::is_foreign(variable, text) {
                let known: Vec<_> =
                    names::keys(&self.schema).iter().map(|key| names::variable(key)).collect();
                let hint = names::nearest(variable, &known)
                    .map_or(String::new(), |name| format!("; did you mean {name}?"));
                self.warnings
                    .push(format!("{variable}: no setting has this name, so it has no effect{hint}"));
            }
        }
    }

    pub(super) fn add_assignment(&mut self, origin: &str, assignment: &str) {
        match assignment.split_once('=') {
            Some((key, text)) => {
                let path: Vec<_> = key.trim().split('.').map(str::to_owned).collect();
                self.set_text(origin, &path, text);
            }
            None => {
                self.errors.push(format!("{origin}: '{}' must be section.key=value", excerpt(assignment)))
            }
        }
    }

    fn set_text(&mut self, origin: &str, path: &[String], text: &str) {
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
            Err(error) => self.errors.push(format!("{}: {}: {error}", excerpt(origin), excerpt(key))),
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
            // The deserializer's message would quote the value, which may be a secret.
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
        let all = names::keys(&self.schema);
        let hint = names::nearest(&path.join("."), &all);
        let hint = hint.map_or(String::new(), |key| format!("; did you mean {key}?"));
        format!("unknown key; the keys {place} are {}{hint}", keys.join(", "))
    }

    pub(super) fn finish(mut self, check: impl FnOnce(&T) -> Vec<String>) -> Result<Loaded<T>, ConfigErrors> {
        match self.values.try_into::<T>() {
            Ok(config) => {
                let mut errors = Vec::new();
                config.validate(&mut errors);
                errors.extend(check(&config));
                self.errors.extend(errors.into_iter().map(|error| with_origin(&self.origins, error)));
                if self.errors.is_empty() {
                    return Ok(Loaded { config, origins: self.origins, warnings: self.warnings });
                }
            }
            Err(error) => self.errors.push(format!("configuration: {}", error.message())),
        }
        Err(ConfigErrors(self.errors))
    }
}

/// Prefixes a config error with the origin of its key.
fn with_origin(origins: &BTreeMap<String, String>, error: String) -> String {
    let key = error.split([':', '[']).next().unwrap_or_default();
    let origin = origins.get(key).map_or("configuration", String::as_str);
    format!("{origin}: {error}")
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

/// Parses text as the type of the default. Other text stays a string, which the later check refuses.
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

/// An example of a value, for the error about a value that can't be parsed.
fn example(default: &Value) -> Option<String> {
    match default {
        Value::Table(_) => None,
        Value::String(text) if text.is_empty() => None,
        value => Some(value.to_string()),
    }
}
