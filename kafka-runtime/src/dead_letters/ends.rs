//! End offsets of the dead-letter topic.

use super::id::LetterId;
use std::fmt;
use std::str::FromStr;

/// The end offset of each partition of the dead-letter topic at one moment. A replay of many letters stops there, so that it
/// does not follow the letters that it causes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends(pub(super) Vec<i64>);

impl Ends {
    pub(super) fn contains(&self, id: LetterId) -> bool {
        let end = usize::try_from(id.0.partition).ok().and_then(|partition| self.0.get(partition));
        end.is_some_and(|end| id.0.offset < *end)
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ends.join(","))
    }
}

impl FromStr for Ends {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}
