//! The JSON form of the contract: [proto3 JSON](https://protobuf.dev/programming-guides/json/), read and written through `serde`.
//!
//! `build/json.rs` generates a table of fields and two short functions per message; the rules are here. Members that are unknown are
//! ignored, `null` means absent, and a value that does not fit is refused in words for the person who wrote the frame. An error begins
//! with the path of the member, such as `` `send.message.text` ``.
//!
//! Numbers with a fraction of zero or an exponent are integers too, up to 2^53: beyond it such a number has lost digits on its way.

mod error;
pub(crate) mod read;
mod value;
pub(crate) mod write;

use serde::{de::MapAccess, ser::SerializeMap};
use std::marker::PhantomData;

pub use error::describe;
pub(crate) use value::Value;

/// The fields of a message.
#[derive(Debug)]
pub(crate) struct Schema {
    /// In the order of the generated code.
    pub(crate) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(crate) struct Field {
    /// The name in JSON, in `camelCase`.
    pub(crate) json_name: &'static str,
    /// The original name, in `snake_case`.
    pub(crate) name: &'static str,
    /// The field number.
    pub(crate) number: u32,
    /// The kind of value of the field. Lists hold elements of this kind, and maps hold entries.
    pub(crate) kind: Kind,
}

/// The value of a field, as far as the binary encoding can be wrong.
#[derive(Debug)]
pub(crate) enum Kind {
    /// An integer, a truth value or an enum.
    Varint,
    /// Text in UTF-8.
    Text,
    /// Any bytes, or a packed list of integers.
    Bytes,
    /// A message.
    Message(fn() -> &'static Schema),
}

/// A message of the contract. Implemented by generated code.
pub(crate) trait Message: Default + PartialEq {
    /// The table of the fields.
    fn schema() -> &'static Schema;
    /// The index of the field with a JSON name or an original name.
    fn field(name: &str) -> Option<usize>;
    /// Reads the value of the field with an index.
    fn read<'de, A: MapAccess<'de>>(&mut self, field: usize, json: &mut A) -> Result<(), A::Error>;
    /// Writes the fields that are not at their default.
    fn write<M: SerializeMap>(&self, json: &mut M) -> Result<(), M::Error>;
}

/// An enum of the contract. Implemented by generated code.
pub(crate) trait Enumeration {
    /// The names of all values.
    const NAMES: &'static [&'static str];
    /// The name of a value. `None` if this version does not know the value.
    fn name(number: i32) -> Option<&'static str>;
    /// The value with a name.
    fn number(name: &str) -> Option<i32>;
}

/// The form of an enum `E`: a name, or the number of a value that this version does not know.
pub(crate) struct Open<E>(PhantomData<E>);

/// The form of a repeated field with elements of the form `T`.
pub(crate) struct List<T>(PhantomData<T>);

/// Implements the traits of `serde` for a message.
macro_rules! serde_impls {
    ($message:ty) => {
        impl serde::Serialize for $message {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <Self as crate::json::Value>::write(self, serializer)
            }
        }
        impl<'de> serde::Deserialize<'de> for $message {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::json::read::root::<D, Self>(deserializer)
            }
        }
    };
}
pub(crate) use serde_impls;

/// How many times its size a body may have in JSON. A client that writes ASCII only needs this for any text without control
/// characters.
pub const MAX_GROWTH: usize = 3;

/// The size of a text in JSON, in bytes, with quotation marks. Control characters take up to six bytes.
pub fn text_size(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    2 + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_size_of_a_text_is_that_of_its_json(text in "(.|[\\x00-\\x1f\"\\\\]){0,60}") {
            prop_assert_eq!(text_size(&text), serde_json::to_string(&text).unwrap().len());
        }
    }
}
