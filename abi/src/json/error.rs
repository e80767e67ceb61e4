//! Errors about JSON: the expected and the found kind of value, and the path of the member.

use crate::error::quoted;
use serde::de::Error;
use std::fmt;

/// A value in a JSON text that is not a list or an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
    List,
    Object,
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::List => f.write_str("a list"),
            Self::Object => f.write_str("an object"),
        }
    }
}

/// The error about a value of a kind that its member does not take.
pub(crate) fn unexpected<E: Error>(expected: impl fmt::Display, found: Found<'_>) -> E {
    E::custom(format_args!("expected {expected}, got {found}"))
}

/// Puts the name of a member in front of the path of an error.
pub(crate) fn in_member<E: Error>(name: &str, error: E) -> E {
    let text = error.to_string();
    match text.strip_prefix('`') {
        Some(rest) if rest.starts_with('[') => E::custom(format_args!("`{name}{rest}")),
        Some(rest) => E::custom(format_args!("`{name}.{rest}")),
        None => E::custom(format_args!("`{name}`: {text}")),
    }
}

/// Puts the position in a list in front of the path of an error.
pub(crate) fn in_element<E: Error>(index: usize, error: E) -> E {
    in_member(&format!("[{index}]"), error)
}

/// The words of `serde_json` for common mistakes, and better ones.
const WORDS: [(&str, &str); 4] = [
    ("EOF while parsing", "the JSON text ends in"),
    (
        "unexpected end of hex escape",
        "a \\u escape is incomplete, or is half of a surrogate pair, such as half of an emoji",
    ),
    (
        "lone leading surrogate in hex escape",
        "a \\u escape is half of a surrogate pair, such as half of an emoji",
    ),
    ("expected value", "expected a value"),
];

/// The problem of a JSON text and its place: the member, or the position.
pub fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let mut sentence = text.strip_suffix(&position).unwrap_or(&text).to_owned();
    for (theirs, ours) in WORDS {
        sentence = sentence.replacen(theirs, ours, 1);
    }
    // A member says more than a position.
    if !sentence.starts_with('`') {
        sentence += &format!(" (line {}, column {})", error.line(), error.column());
    }
    sentence
}
