//! Sizes and secrets.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// A size in bytes, written `16KiB`, `1MiB`, `512B` or as a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size in bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size in KiB.
    pub const fn kib(kib: u64) -> Self {
        Self(kib * 1024)
    }

    /// The number of bytes, saturated at `usize::MAX`.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .into_iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let (number, factor) = UNITS
            .into_iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number.trim(), factor)))
            .unwrap_or((text, 1));
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| format!("'{text}' is not a size; write a whole number with B, KiB, MiB or GiB"))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Notation {
            Number(u64),
            Text(String),
        }
        match Notation::deserialize(deserializer)? {
            Notation::Number(bytes) => Ok(Self(bytes)),
            Notation::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// A text that is never shown: logs, `Debug` and printed configurations contain `[redacted]` instead.
///
/// `file:PATH` is replaced by the content of the file without trailing white space, and `NAME=file:PATH` by `NAME=` and
/// that content. The file is read during deserialization.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text without change; `file:` has no meaning here.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for its use only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the secret is not set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "[not set]" } else { "[redacted]" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "[redacted]" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (name, path) = match text.split_once("file:") {
            Some(("", path)) => ("", path),
            Some((name, path)) if name.ends_with('=') => (name, path),
            _ => return Ok(Self(text)),
        };
        let content = std::fs::read_to_string(path).map_err(|error| {
            D::Error::custom(format!("cannot read the file {path} of the secret: {error}"))
        })?;
        Ok(Self(format!("{name}{}", content.trim_end())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed_and_formatted() {
        for (text, bytes) in [("16KiB", 16_384), ("1 MiB", 1 << 20), ("0", 0), ("7B", 7), ("1025", 1025)] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes);
            assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
        }
        for text in ["", "16kb", "-1", "1.5KiB", "99999999999GiB"] {
            text.parse::<ByteSize>().unwrap_err();
        }
    }

    #[test]
    fn p8_a_secret_is_redacted() {
        let secret = Secret::new("hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!(!serde_json::to_string(&secret).unwrap().contains("hunter2"));
    }

    #[test]
    fn a_secret_is_read_from_its_file() {
        let path = std::env::temp_dir().join(format!("godwit-secret-{}", std::process::id()));
        std::fs::write(&path, "hunter2\n").unwrap();
        let read = |text: String| serde_json::from_value::<Secret>(text.into());
        assert_eq!(read(format!("file:{}", path.display())).unwrap().expose(), "hunter2");
        assert_eq!(read(format!("k1=file:{}", path.display())).unwrap().expose(), "k1=hunter2");
        std::fs::remove_file(&path).unwrap();
        assert!(
            read(format!("file:{}", path.display()))
                .unwrap_err()
                .to_string()
                .contains("cannot read the file")
        );
    }
}
