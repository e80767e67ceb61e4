//! Loads the configuration from four sources: defaults < TOML file < environment < command line.
//!
//! The serialised defaults of `T` are the schema: they define the keys and the type of each. Every value is first tried
//! alone on top of the defaults, so that all config errors are reported at once, each with the source of the value.
//! This is why `T` and its sections carry `#[serde(default)]`, and why optional values are empty texts.
//!
//! - File: TOML tables are sections.
//! - Environment: `GODWIT_SECTION__KEY`, or `GODWIT_KEY` for a key outside of sections.
//! - Command line: `section.key=value`.
//!
//! In the environment and on the command line, lists are TOML lists or comma-separated text.

mod names;
mod overlay;

pub use abi::config::{ByteSize, Secret};

use overlay::Overlay;
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt, path::PathBuf};

/// The sources of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file. `None`: only the defaults.
    pub file: Option<PathBuf>,
    /// The environment. Tests and embedding programs pass their own.
    pub environment: BTreeMap<String, String>,
    /// Settings from the command line: the option's name for config errors, and `section.key=value`. Later ones win.
    pub overrides: Vec<(String, String)>,
}

/// Checks that need all values of a configuration.
pub trait Validate {
    /// Appends config errors, each as `section.key: a sentence`.
    fn validate(&self, errors: &mut Vec<String>);
}

impl Validate for abi::config::Config {
    fn validate(&self, errors: &mut Vec<String>) {
        errors.extend(self.errors());
        if !crate::telemetry::is_filter(&self.log.level) {
            errors
                .push("log.level: must be a level such as info, or a filter such as info,kafka=debug".into());
        }
    }
}

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The values.
    pub config: T,
    /// The source of each key that was set.
    pub origins: BTreeMap<String, String>,
    /// Variables of the environment that look like settings and are not, one sentence each.
    pub warnings: Vec<String>,
}

/// All errors of a configuration, one sentence per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// The errors, one sentence each.
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Loads and checks a configuration.
///
/// # Errors
/// All config errors of all sources.
pub fn load<T>(sources: &Sources) -> Result<Loaded<T>, ConfigErrors>
where
    T: Serialize + DeserializeOwned + Default + Validate,
{
    load_checked(sources, |_| Vec::new())
}

/// Loads and checks a configuration. `check` returns further config errors, each as `section.key: a sentence`.
///
/// # Errors
/// All config errors of all sources.
pub fn load_checked<T>(
    sources: &Sources,
    check: impl FnOnce(&T) -> Vec<String>,
) -> Result<Loaded<T>, ConfigErrors>
where
    T: Serialize + DeserializeOwned + Default + Validate,
{
    let mut overlay = Overlay::<T>::new();
    if let Some(file) = &sources.file {
        overlay.add_file(file);
    }
    overlay.add_environment(&sources.environment);
    for (origin, text) in &sources.overrides {
        overlay.add_assignment(origin, text);
    }
    overlay.finish(check)
}

#[cfg(test)]
mod tests;
