//! The types of keys.

use super::{
    network::Network,
    units::{ByteSize, Secret},
};
use serde::Serialize;
use std::time::Duration;

/// The type of a key.
pub(super) trait Value: Serialize + 'static {
    /// The value as TOML.
    fn to_toml(&self) -> String {
        // JSON and TOML have the same notation for numbers, flags and texts.
        serde_json::to_string(self).expect("values of keys always have a JSON form")
    }
}

impl Value for String {}
impl Value for bool {}
impl Value for u32 {}
impl Value for f64 {}
impl Value for ByteSize {}
impl Value for Network {}

impl Value for Duration {
    fn to_toml(&self) -> String {
        humantime::format_duration(*self).to_string().to_toml()
    }
}

impl Value for Secret {
    fn to_toml(&self) -> String {
        self.expose().to_owned().to_toml()
    }
}

impl<T: Value> Value for Vec<T> {
    fn to_toml(&self) -> String {
        format!("[{}]", self.iter().map(T::to_toml).collect::<Vec<_>>().join(", "))
    }
}
