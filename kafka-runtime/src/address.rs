//! Addresses: where records are read and written, and how, in one line or in one section of a configuration file.
//!
//! ```text
//! kafka://[user:password@]host:9092,host2:9092?topics=a,b&group=g&offset=latest
//! log:///absolute/folder?topics=a,b&group=g        log:relative/folder?topics=a
//! ```
//!
//! Inside names and values, write the reserved characters `% & # , @ : / ?` and space as `%XX`. The same address as a section
//! of a configuration file, where a dotted name may also be a table:
//!
//! ```toml
//! [mail]
//! brokers = ["host:9092", "host2:9092"] # or: folder = "data/log"
//! topics = ["a", "b"]
//! group = "g"
//! retry = { attempts = 5, max = "10s" }
//! ```
//!
//! [`Address::options`] and the table in the README of this crate list every option with its defaults.

mod consumer;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "embedded")]
mod log;
mod options;
mod parse;
mod raw;
mod section;
mod settings;
mod values;

pub use options::AddressOption;

use crate::error::Error;
use raw::{Endpoint, RawAddress};
use settings::Settings;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Where records are read and written, and how. Parsed from text or from a section of a configuration file. `Display` and
/// `Debug` hide its secrets.
#[derive(Clone)]
pub struct Address {
    endpoint: Endpoint,
    /// The options of the text or section, by name, as text. Defaults are not in here.
    given: BTreeMap<String, String>,
    settings: Settings,
}

impl Address {
    /// All options, in the order of the documentation.
    pub fn options() -> &'static [AddressOption] {
        options::OPTIONS
    }

    /// The brokers, `host:port`; `None` if this is an embedded log.
    pub fn brokers(&self) -> Option<&[String]> {
        match &self.endpoint {
            Endpoint::Kafka { brokers } => Some(brokers),
            Endpoint::Log { .. } => None,
        }
    }

    /// The folder of the embedded log; `None` if this is Kafka.
    pub fn folder(&self) -> Option<&Path> {
        match &self.endpoint {
            Endpoint::Kafka { .. } => None,
            Endpoint::Log { folder } => Some(folder),
        }
    }

    /// The topics, possibly none.
    pub fn topics(&self) -> &[String] {
        &self.settings.topics
    }

    /// The consumer group, if one was given.
    pub fn group(&self) -> Option<&str> {
        self.settings.group.as_deref()
    }

    /// The topic for records that can't be handled, if one was given.
    pub fn dead_letters(&self) -> Option<&str> {
        self.settings.dead_letters.as_deref()
    }

    /// Checks everything, and reports all config errors at once.
    fn from_raw(raw: RawAddress) -> Result<Self, Error> {
        let RawAddress { endpoint, options, mut errors } = raw;
        errors.extend(endpoint.missing_feature());
        let mut settings = options::defaults(&endpoint);
        let mut given = BTreeMap::new();
        for (name, value) in options {
            if let Err(error) = options::set(&mut settings, &endpoint, &name, &value) {
                errors.push(error);
            }
            if given.contains_key(&name) {
                errors.push(format!("`{name}` is given twice"));
            }
            given.insert(name, value);
        }
        errors.extend(settings.conflicts(&given));
        if errors.is_empty() { Ok(Self { endpoint, given, settings }) } else { Err(config_errors(errors)) }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse::address(text).map_err(|error| config_errors(vec![error])).and_then(Self::from_raw)
    }
}

/// Bytes after which the sentence of a config error is cut off.
const MAX_ERROR_BYTES: usize = 500;

/// Makes config errors printable: they quote input, which may be long or contain control characters.
fn config_errors(errors: Vec<String>) -> Error {
    let printable = |error: String| {
        let mut text = String::new();
        for character in error.chars() {
            match character {
                _ if text.len() >= MAX_ERROR_BYTES => return text + "…",
                character if character.is_control() => text.extend(character.escape_default()),
                character => text.push(character),
            }
        }
        text
    };
    Error::Address { errors: errors.into_iter().map(printable).collect() }
}

impl PartialEq for Address {
    /// Compares the endpoints and the given options as text: an explicit default differs from an omitted option.
    fn eq(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.given == other.given
    }
}

impl fmt::Display for Address {
    /// The address in one line, with `***` for secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        parse::print(f, &self.endpoint, &self.given)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(all(test, feature = "kafka", feature = "embedded"))]
mod tests;
