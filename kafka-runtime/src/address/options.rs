//! Options by name: parsing, defaults, and the error for an unknown one.

mod table;

pub(super) use table::OPTIONS;

use super::raw::Endpoint;
use super::settings::Settings;

/// One option of an [`Address`](super::Address).
pub struct AddressOption {
    /// Its name.
    pub name: &'static str,
    /// The default with Kafka, empty if unset; `None` if the option is not for Kafka.
    pub kafka: Option<&'static str>,
    /// The default with the embedded log, empty if unset; `None` if the option is not for the embedded log.
    pub log: Option<&'static str>,
    /// Its meaning, in Markdown.
    pub doc: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

impl std::fmt::Debug for AddressOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressOption").field("name", &self.name).finish_non_exhaustive()
    }
}

impl AddressOption {
    fn default(&self, endpoint: &Endpoint) -> Option<&'static str> {
        match endpoint {
            Endpoint::Kafka { .. } => self.kafka,
            Endpoint::Log { .. } => self.log,
        }
    }
}

/// Options with this prefix are passed to librdkafka.
const PROPERTY_PREFIX: &str = "kafka.";

/// Whether the value of an option must not be printed. Any setting of librdkafka may be a secret.
pub(super) fn is_secret(name: &str) -> bool {
    name == "sasl.password" || name.starts_with(PROPERTY_PREFIX)
}

/// The settings with the default of every option.
pub(super) fn defaults(endpoint: &Endpoint) -> Settings {
    let mut settings = Settings::default();
    for option in OPTIONS {
        if let Some(default) = option.default(endpoint).filter(|default| !default.is_empty()) {
            (option.set)(&mut settings, default).expect("a test parses every default");
        }
    }
    settings
}

/// Sets one option. The error is a sentence.
pub(super) fn set(
    settings: &mut Settings,
    endpoint: &Endpoint,
    name: &str,
    value: &str,
) -> Result<(), String> {
    if let (Some(property), Endpoint::Kafka { .. }) = (name.strip_prefix(PROPERTY_PREFIX), endpoint) {
        settings.properties.push((property.to_owned(), value.to_owned()));
        return Ok(());
    }
    let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
        return Err(unknown(name));
    };
    if option.default(endpoint).is_none() {
        let other = if option.kafka.is_none() { "the embedded log" } else { "Kafka" };
        return Err(format!("`{name}` is for {other} only"));
    }
    (option.set)(settings, value).map_err(|error| format!("`{name}` {error}"))
}

fn unknown(name: &str) -> String {
    let closest =
        OPTIONS.iter().map(|option| (strsim::damerau_levenshtein(name, option.name), option.name)).min();
    match closest {
        Some((distance, nearest)) if distance <= 3 => {
            format!("unknown option `{name}`; did you mean `{nearest}`?")
        }
        _ => format!("unknown option `{name}`"),
    }
}
