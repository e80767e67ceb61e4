//! Addresses: where records are read and written, and how, in one line or in one section of a configuration file.
//!
//! ```text
//! kafka://[user:password@]host:9092,host2:9092?topics=a,b&group=g&offset=latest
//! log:///absolute/folder?topics=a,b&group=g        log:relative/folder?topics=a
//! ```
//!
//! Characters that have a meaning here (`% & # , @ : / ?` and space) are written `%XX` inside names and values. The same as
//! a section of a configuration file, where a dot in a name may be a table of its own:
//!
//! ```toml
//! [mail]
//! brokers = ["host:9092", "host2:9092"] # or: folder = "data/log"
//! topics = ["a", "b"]
//! group = "g"
//! retry = { attempts = 5, max = "10s" }
//! ```
//!
//! Every option, with what it is when it is not given: [`Address::options`], and the table in the README of this crate.

mod clients;
mod options;
mod parse;
mod section;
mod settings;
mod values;

pub use options::AddressOption;

use crate::error::Error;
use settings::Settings;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where records are read and written, and how. Made from text or from a section of a configuration file; printed without
/// its secrets.
#[derive(Clone)]
pub struct Address {
    endpoint: Endpoint,
    /// The options that were given, by name, as text.
    given: BTreeMap<String, String>,
    settings: Settings,
}

/// What lies behind an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Kafka { brokers: Vec<String> },
    Log { folder: PathBuf },
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

    /// Where records go that can't be handled, if that was given.
    pub fn dead_letters(&self) -> Option<&str> {
        self.settings.dead_letters.as_deref()
    }

    /// Brokers with options by name; those without a value are left out.
    pub(crate) fn kafka(brokers: Vec<String>, options: &[(&str, &str)]) -> Result<Self, Error> {
        let given = options.iter().filter(|(_, value)| !value.is_empty());
        let given = given.map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let unreachable = parse::check_brokers(&brokers);
        match (Self::new(Endpoint::Kafka { brokers }, given), unreachable) {
            (Ok(address), None) => Ok(address),
            (made, fault) => Err(error(fault.into_iter().chain(made.err().unwrap_or_default()).collect())),
        }
    }

    /// Checks all that was given; every fault at once.
    fn new(endpoint: Endpoint, given: Vec<(String, String)>) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let mut settings = Settings::defaults(&endpoint);
        let mut known = BTreeMap::new();
        for (name, value) in given {
            if let Err(fault) = options::set(&mut settings, &endpoint, &name, &value) {
                faults.push(fault);
            }
            if known.contains_key(&name) {
                faults.push(format!("`{name}` is given twice"));
            }
            known.insert(name, value);
        }
        faults.extend(settings.faults(&known));
        if faults.is_empty() { Ok(Self { endpoint, given: known, settings }) } else { Err(faults) }
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse::address(text).map_err(error)
    }
}

/// Longest sentence of a fault, in bytes.
const LONGEST: usize = 500;

/// The error of all faults. They quote what was given, which may be long or hold control characters.
fn error(faults: Vec<String>) -> Error {
    let show = |fault: String| {
        let mut shown = String::new();
        for character in fault.chars() {
            match character {
                _ if shown.len() >= LONGEST => return shown + "…",
                character if character.is_control() => shown.extend(character.escape_default()),
                character => shown.push(character),
            }
        }
        shown
    };
    Error::Address { faults: faults.into_iter().map(show).collect() }
}

impl PartialEq for Address {
    /// Whether the same was given. What an option is when it is not given is another matter.
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

#[cfg(test)]
mod tests;
