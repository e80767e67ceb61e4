//! A 16-byte id as the ledger stores it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A message id or a `client_msg_id`: 16 bytes, written in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Id(pub [u8; 16]);

impl Id {
    /// Parses 32 hexadecimal digits; dashes are ignored.
    pub fn parse(text: &str) -> Option<Self> {
        abi::ids::message_bytes(&text.replace('-', "")).map(Self)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&abi::ids::hex(&self.0))
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not 32 hexadecimal digits")
    }
}
