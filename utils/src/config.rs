//! One configuration out of four places: defaults < TOML file < environment < command line.
//!
//! The defaults of `T`, serialised, are the schema: which keys there are and which type each has. Every value that is
//! set is tried alone against the defaults first, so that each fault is reported with the place that it came from,
//! all of them at once. Hence `T` and the structs in it carry `#[serde(default)]`, and optional values are empty
//! texts.
//!
//! - File: TOML tables are sections.
//! - Environment: `GODWIT_SECTION__KEY`, or `GODWIT_KEY` for a key outside of sections.
//! - Command line: `section.key=value`.
//!
//! Lists in the latter two are TOML lists or comma-separated text.

mod overlay;

pub use abi::config::{ByteSize, Secret};

use overlay::Overlay;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// Where a configuration is taken from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file; without one, the defaults.
    pub file: Option<PathBuf>,
    /// The environment, passed in so that tests and embedding programs can have their own.
    pub environment: BTreeMap<String, String>,
    /// From the command line: what to call it in a fault, and `section.key=value`. Later ones win.
    pub overrides: Vec<(String, String)>,
}

/// Checks values taken together, after each of them has been read.
pub trait Validate {
    /// Adds what is wrong, each as `section.key: a sentence`.
    fn validate(&self, faults: &mut Vec<String>);
}

impl Validate for abi::config::Config {
    fn validate(&self, faults: &mut Vec<String>) {
        faults.extend(self.faults());
        if !crate::telemetry::is_filter(&self.log.level) {
            faults
                .push("log.level: must be a level such as info, or a filter such as info,kafka=debug".into());
        }
    }
}

/// A configuration without fault.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The values.
    pub config: T,
    /// Keys that are not left at their default, and where each was set.
    pub origins: BTreeMap<String, String>,
}

/// All that is wrong with a configuration: one sentence per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<String>);

impl Faults {
    /// The sentences.
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// Reads everything and checks it.
///
/// # Errors
/// Every fault of every source.
pub fn load<T>(sources: &Sources) -> Result<Loaded<T>, Faults>
where
    T: Serialize + DeserializeOwned + Default + Validate,
{
    load_checked(sources, |_| Vec::new())
}

/// Reads everything and checks it; `check` adds what else is wrong with the values, each as `section.key: a sentence`.
///
/// # Errors
/// Every fault of every source.
pub fn load_checked<T>(sources: &Sources, check: impl FnOnce(&T) -> Vec<String>) -> Result<Loaded<T>, Faults>
where
    T: Serialize + DeserializeOwned + Default + Validate,
{
    let mut overlay = Overlay::<T>::new();
    if let Some(file) = &sources.file {
        overlay.file(file);
    }
    overlay.environment(&sources.environment);
    for (origin, text) in &sources.overrides {
        overlay.assignment(origin, text);
    }
    overlay.finish(check)
}

#[cfg(test)]
mod tests;
