//! Settings of conversations, the heads that show them, and signals.

use super::{Conversation, Millis, User};
use serde::{Deserialize, Serialize};

/// A change of a user's settings of a conversation. Its number in the ledger determines the settings: see [`Settings::of`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChange {
    /// The user.
    pub user: User,
    /// The conversation.
    pub conversation: Conversation,
    /// When the device got the command to make it.
    pub began: Millis,
    /// When the server confirmed it. `None`: it may be made at any later time, or not at all.
    pub answered: Option<Millis>,
}

/// A signal that a user sent. Its number in the ledger is its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentSignal {
    /// The user.
    pub user: User,
    /// The conversation.
    pub conversation: Conversation,
    /// When the device got the command to send it.
    pub began: Millis,
}

/// Settings of a conversation, as far as the workload changes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Pinned to the top of the list.
    pub pinned: bool,
    /// Moved out of the list.
    pub archived: bool,
    /// The unsent text.
    pub draft: String,
}

impl Settings {
    /// The settings that the change with a number makes.
    pub fn of(number: u32) -> Self {
        Self { pinned: number % 2 == 1, archived: number % 3 == 1, draft: format!("draft {number}") }
    }
}

/// A head as a user reads it at the end of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalHead {
    /// The reader.
    pub user: User,
    /// The conversation.
    pub conversation: Conversation,
    /// The last entry that the user can see.
    pub conversation_seq: u32,
    /// The read position.
    pub read_seq: u32,
    /// The number of unread messages.
    pub unread: u32,
    /// The settings.
    pub settings: Settings,
}
