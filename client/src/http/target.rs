//! A path of the API with parameters.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Display;

/// A path, and its parameters after `?`.
pub(super) struct Target(String);

impl Target {
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// A path below a conversation; `below` begins with a slash or is empty.
    pub(super) fn of_conversation(conversation: &str, below: &str) -> Self {
        Self(format!("/v1/conversations/{conversation}{below}"))
    }

    /// Adds a parameter.
    pub(super) fn with(mut self, name: &str, value: impl Display) -> Self {
        let value = value.to_string();
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.extend([name, "="]);
        self.0.extend(utf8_percent_encode(&value, NON_ALPHANUMERIC));
        self
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_escaped() {
        let target = Target::new("/v1/changes").with("cursor", "1.d:a&b").with("limit", 7);
        assert_eq!(target.as_str(), "/v1/changes?cursor=1%2Ed%3Aa%26b&limit=7");
    }
}
