//! The JSON form of each type of field.

use super::{
    Enumeration, List, Message, Open,
    error::{Found, unexpected},
    read,
    write::Writing,
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde::{
    Serializer,
    de::{Error, MapAccess, SeqAccess},
    ser::SerializeMap as _,
};
use std::{borrow::Cow, collections::HashMap, fmt};

/// A type of field with a JSON form.
pub(crate) trait Value: Sized {
    /// The type of the value in a message.
    type Stored: Default + PartialEq;

    /// The values that a member of this type takes, for errors.
    fn expected() -> Cow<'static, str>;

    /// Reads a value that is no list and no object.
    fn from_scalar<E: Error>(found: Found<'_>) -> Result<Self::Stored, E>;

    /// Reads an object.
    fn from_object<'de, A: MapAccess<'de>>(_: A) -> Result<Self::Stored, A::Error> {
        Err(unexpected(Self::expected(), Found::Object))
    }

    /// Reads a list.
    fn from_list<'de, A: SeqAccess<'de>>(_: A) -> Result<Self::Stored, A::Error> {
        Err(unexpected(Self::expected(), Found::List))
    }

    /// Writes a value.
    fn write<S: Serializer>(value: &Self::Stored, serializer: S) -> Result<S::Ok, S::Error>;
}

impl<M: Message> Value for M {
    type Stored = M;

    fn expected() -> Cow<'static, str> {
        "an object".into()
    }

    fn from_scalar<E: Error>(found: Found<'_>) -> Result<M, E> {
        Err(unexpected(Self::expected(), found))
    }

    fn from_object<'de, A: MapAccess<'de>>(object: A) -> Result<M, A::Error> {
        read::message(object)
    }

    fn write<S: Serializer>(value: &M, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        Message::write(value, &mut object)?;
        object.end()
    }
}

impl Value for String {
    type Stored = String;

    fn expected() -> Cow<'static, str> {
        "a text".into()
    }

    fn from_scalar<E: Error>(found: Found<'_>) -> Result<String, E> {
        match found {
            Found::Text(text) => Ok(text.to_owned()),
            found => Err(unexpected(Self::expected(), found)),
        }
    }

    fn write<S: Serializer>(value: &String, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value)
    }
}

impl Value for bool {
    type Stored = bool;

    fn expected() -> Cow<'static, str> {
        "true or false".into()
    }

    fn from_scalar<E: Error>(found: Found<'_>) -> Result<bool, E> {
        match found {
            Found::Bool(value) => Ok(value),
            found => Err(unexpected(Self::expected(), found)),
        }
    }

    fn write<S: Serializer>(value: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*value)
    }
}

/// Reads base64 with and without padding.
const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

impl Value for Bytes {
    type Stored = Bytes;

    fn expected() -> Cow<'static, str> {
        "bytes as base64".into()
    }

    fn from_scalar<E: Error>(found: Found<'_>) -> Result<Bytes, E> {
        let Found::Text(text) = found else { return Err(unexpected(Self::expected(), found)) };
        let is_url_safe = text.bytes().any(|byte| matches!(byte, b'-' | b'_'));
        let engine = if is_url_safe { URL_SAFE } else { STANDARD };
        engine.decode(text).map(Bytes::from).map_err(|_| unexpected(Self::expected(), found))
    }

    fn write<S: Serializer>(value: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(value))
    }
}

/// The largest integer up to which a floating-point number holds every integer: 2^53.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The integer that a number holds, or a number in quotation marks. Numbers with a fraction of zero or an exponent are integers
/// while they are exact.
fn integer(found: Found<'_>) -> Option<i128> {
    match found {
        Found::Unsigned(value) => Some(value.into()),
        Found::Signed(value) => Some(value.into()),
        Found::Float(value) => (value.fract() == 0.0 && value.abs() <= MAX_EXACT).then_some(value as i128),
        Found::Text(text) => integer(number(text)?),
        Found::Null | Found::Bool(_) | Found::List | Found::Object => None,
    }
}

/// Parses a text as a number of JSON.
fn number(text: &str) -> Option<Found<'static>> {
    if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
        return None;
    }
    let number: serde_json::Number = serde_json::from_str(text).ok()?;
    let signed = || number.as_i64().map(Found::Signed);
    let float = || number.as_f64().map(Found::Float);
    number.as_u64().map(Found::Unsigned).or_else(signed).or_else(float)
}

/// Implements [`Value`] for an integer type, with the method that writes it.
macro_rules! integers {
    ($($type:ident, $write:ident);+) => {$(
        impl Value for $type {
            type Stored = $type;

            fn expected() -> Cow<'static, str> {
                format!("an integer from {} to {}", $type::MIN, $type::MAX).into()
            }

            fn from_scalar<E: Error>(found: Found<'_>) -> Result<$type, E> {
                let value = integer(found).and_then(|value| value.try_into().ok());
                value.ok_or_else(|| unexpected(Self::expected(), found))
            }

            fn write<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                $write(*value, serializer)
            }
        }
    )+};
}

integers!(i32, plain; u32, plain; i64, quoted; u64, quoted);

fn plain<S: Serializer>(value: impl Into<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(value.into())
}

/// Integers of 64 bits are quoted, because JavaScript's numbers have 53.
fn quoted<S: Serializer>(value: impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&value)
}

impl<N: Enumeration> Value for Open<N> {
    type Stored = i32;

    fn expected() -> Cow<'static, str> {
        format!("one of {}, or the number of a value", N::NAMES.join(", ")).into()
    }

    fn from_scalar<E: Error>(found: Found<'_>) -> Result<i32, E> {
        let value = match found {
            Found::Text(name) => N::number(name),
            found => integer(found).and_then(|value| value.try_into().ok()),
        };
        value.ok_or_else(|| unexpected(Self::expected(), found))
    }

    fn write<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        match N::name(*value) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.serialize_i32(*value),
        }
    }
}

impl<T: Value> Value for List<T> {
    type Stored = Vec<T::Stored>;

    fn expected() -> Cow<'static, str> {
        "a list".into()
    }

    fn from_scalar<E: Error>(found: Found<'_>) -> Result<Self::Stored, E> {
        Err(unexpected(Self::expected(), found))
    }

    fn from_list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self::Stored, A::Error> {
        read::elements::<A, T>(list)
    }

    fn write<S: Serializer>(values: &Self::Stored, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Writing::<T>))
    }
}

impl<T: Value<Stored = T> + PartialEq> Value for HashMap<String, T> {
    type Stored = Self;

    fn expected() -> Cow<'static, str> {
        "an object".into()
    }

    fn from_scalar<E: Error>(found: Found<'_>) -> Result<Self, E> {
        Err(unexpected(Self::expected(), found))
    }

    fn from_object<'de, A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        read::entries::<A, T>(object)
    }

    fn write<S: Serializer>(values: &Self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(values.iter().map(|(key, value)| (key, Writing::<T>(value))))
    }
}
