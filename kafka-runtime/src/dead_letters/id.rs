//! Ids of dead letters.

use crate::record::Position;
use std::fmt;
use std::str::FromStr;

/// The position of a letter in the dead-letter topic, written `PARTITION-OFFSET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(pub Position);

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.partition, self.0.offset)
    }
}

/// A text is not the id of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not the id of a dead letter: write PARTITION-OFFSET, such as 0-17")]
pub struct ParseLetterIdError {
    text: String,
}

impl FromStr for LetterId {
    type Err = ParseLetterIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (partition, offset) = text.split_once('-')?;
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            let (partition, offset) = Some((partition, offset)).filter(|(p, o)| digits(p) && digits(o))?;
            Some(Self(Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? }))
        };
        parse().ok_or_else(|| ParseLetterIdError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_partition_and_an_offset() {
        assert_eq!("3-17".parse::<LetterId>().unwrap().to_string(), "3-17");
        for text in ["", "3", "3-", "-17", "3-17-1", "3--17", "+3-17", "a-b", "3-99999999999999999999"] {
            let error = text.parse::<LetterId>().unwrap_err().to_string();
            assert!(error.contains("PARTITION-OFFSET"), "{text}: {error}");
        }
    }
}
