//! The parts of an address before its options are checked.

use std::path::PathBuf;

/// The backend of an address: its brokers or its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Kafka { brokers: Vec<String> },
    Log { folder: PathBuf },
}

impl Endpoint {
    /// The config error of a backend that this build lacks.
    pub(super) fn missing_feature(&self) -> Option<String> {
        let (is_built, feature) = match self {
            Self::Kafka { .. } => (cfg!(feature = "kafka"), "kafka"),
            Self::Log { .. } => (cfg!(feature = "embedded"), "embedded"),
        };
        (!is_built)
            .then(|| format!("this address needs a build of kafka-runtime with the feature `{feature}`"))
    }
}

pub(super) struct RawAddress {
    pub(super) endpoint: Endpoint,
    /// Options by name, as text, in the order in which they were given.
    pub(super) options: Vec<(String, String)>,
    /// Config errors found so far, each a sentence.
    pub(super) errors: Vec<String>,
}
