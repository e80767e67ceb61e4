//! The forms of parameters in a query.

use abi::error::quoted;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error};
use std::str::FromStr;

/// Reads a whole number, with an error that names the value.
pub(crate) fn number<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |_| D::Error::custom(format_args!("expected a whole number, got {}", quoted(&text)));
    text.parse().map_err(wrong)
}

/// Texts that are separated by commas.
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(String::deserialize(deserializer)?.split(',').map(str::to_owned).collect())
}

/// A page of a list of users.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PageOfUsers {
    /// The last user of the previous page. Empty: the first page.
    pub(crate) after: String,
    /// Page size. 0 means 100.
    #[serde(deserialize_with = "number")]
    #[schemars(range(min = 0, max = 500))]
    pub(crate) limit: i32,
}

/// Users, by id.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Users {
    /// User ids, separated by commas.
    #[serde(deserialize_with = "list")]
    #[schemars(length(min = 1))]
    pub(crate) users: Vec<String>,
}
