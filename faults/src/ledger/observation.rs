//! Observations of devices.

use super::{Conversation, Id, Millis, User};
use serde::{Deserialize, Serialize};

/// One observation of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// The device showed an entry.
    Entry(Receipt),
    /// The device has every entry that its receiver seq counts.
    Complete {
        /// Epoch of the receiver seq.
        epoch: u32,
        /// The receiver seq.
        seq: u64,
        /// When.
        at: Millis,
    },
    /// The server delivered an entry with the receiver seq that counts it, whether or not the device could show it.
    Delivered {
        /// The conversation.
        conversation: Conversation,
        /// The entry's `conversation_seq`.
        conversation_seq: u32,
        /// Its message id.
        message_id: Id,
        /// Digest of its content.
        digest: u64,
        /// Digest of the state of the message that it changes; 0 for other entries.
        target_state: u64,
        /// Epoch of the receiver seq.
        epoch: u32,
        /// The receiver seq.
        seq: u64,
        /// When.
        at: Millis,
    },
    /// The server answered a ping with the device's own receiver seq, and the device has nothing left to fetch.
    UpToDate {
        /// When the device sent the ping.
        asked: Millis,
    },
    /// The server listed a conversation in the user's heads.
    Head {
        /// The conversation.
        conversation: Conversation,
        /// The `conversation_seq` of its last entry.
        conversation_seq: u32,
        /// The first `conversation_seq` that the user may see.
        visible_from: u32,
    },
    /// The server delivered a signal.
    Signal {
        /// The conversation in it.
        conversation: Conversation,
        /// The sender in it.
        user: User,
        /// The number in its content. `None`: the user is typing.
        number: Option<u32>,
        /// When.
        at: Millis,
    },
    /// The server answered a read mark.
    ReadPosition {
        /// The conversation.
        conversation: Conversation,
        /// The answered read position.
        read: u32,
    },
    /// The server returned a lower read position than before.
    ReadPositionRegressed {
        /// The conversation.
        conversation: Conversation,
        /// The returned read position.
        read: u32,
        /// The highest read position returned before.
        known: u32,
        /// When.
        at: Millis,
    },
    /// A history request for an entry that had been delivered did not return it.
    Unreadable {
        /// The conversation.
        conversation: Conversation,
        /// The entry's `conversation_seq`.
        conversation_seq: u32,
        /// The answer to the request.
        answer: FailedRead,
        /// When.
        at: Millis,
    },
}

/// The answer to a history request that did not return the expected entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailedRead {
    /// An empty page.
    Empty,
    /// Another entry.
    OtherEntry,
    /// A permanent error.
    Refused,
}

/// An entry that a device showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The conversation.
    pub conversation: Conversation,
    /// The entry's `conversation_seq`.
    pub conversation_seq: u32,
    /// Its message id.
    pub message_id: Id,
    /// Digest of its content.
    pub digest: u64,
    /// Digest of its state.
    pub state: u64,
    /// When.
    pub at: Millis,
    /// Whether the device was up to date before the entry came.
    pub live: bool,
}
