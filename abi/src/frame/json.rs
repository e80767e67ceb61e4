//! What a frame in JSON says when it can't be decoded.

use super::MAX_UNKNOWN;
use crate::{
    error::shortened,
    json::{Message as _, read::root},
    v1::ClientFrame,
};
use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use std::fmt;

/// The outermost members of a frame.
#[derive(Default)]
pub(super) struct Outline {
    /// The id. 0 if there is none.
    pub(super) id: u32,
    /// Names of the first unknown members, in backticks.
    pub(super) unknown: Vec<String>,
}

impl Outline {
    /// Reads as much of a frame as is JSON.
    pub(super) fn read(text: &str) -> Self {
        let mut outline = Self::default();
        // An error only ends the reading: the caller has a better one.
        let _ = serde_json::Deserializer::from_str(text).deserialize_map(&mut outline);
        outline
    }
}

impl<'de> Visitor<'de> for &mut Outline {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(name) = object.next_key::<String>()? {
            if name == "id" {
                self.id = object.next_value_seed(Id)?;
                continue;
            }
            if ClientFrame::field(&name).is_none() && self.unknown.len() < MAX_UNKNOWN {
                self.unknown.push(format!("`{}`", shortened(&name)));
            }
            object.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// Reads an id.
struct Id;

impl<'de> DeserializeSeed<'de> for Id {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        root::<D, u32>(deserializer)
    }
}
