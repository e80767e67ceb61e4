//! Commands to devices.

use crate::ledger::Settings;
use abi::v1::{SetSettings, signal};
use client::Draft;
use std::time::Duration;

/// An entry for a device to send.
#[derive(Clone, Debug)]
pub(super) struct SendJob {
    /// Index of the send in the ledger.
    pub(super) send: u32,
    /// The conversation's id.
    pub(super) conversation: String,
    /// The `client_msg_id`.
    pub(super) client_msg_id: String,
    /// The rest of the entry.
    pub(super) draft: Draft,
    /// Whether another device may send a copy. A copy is not copied: the other device would get its own `client_msg_id` back.
    pub(super) may_be_copied: bool,
}

/// The kind of an entry to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// A message with a text of this many bytes.
    Message { size: usize },
    /// The same, as an answer to a message.
    Reply { to: String, size: usize },
    /// A new text for a message.
    Edit { target: String, size: usize },
    /// A recall of a message.
    Recall { target: String },
    /// All reactions of the user to a message.
    Reaction { target: String, reactions: Vec<&'static str> },
}

impl Intent {
    /// The message that is changed.
    pub(super) fn target(&self) -> Option<&str> {
        match self {
            Self::Message { .. } | Self::Reply { .. } => None,
            Self::Edit { target, .. } | Self::Recall { target } | Self::Reaction { target, .. } => {
                Some(target)
            }
        }
    }

    /// The entry. Its text repeats the `client_msg_id` to the end, so that a truncated or mixed-up text is not that of another
    /// entry.
    pub(super) fn draft(&self, client_msg_id: &str) -> Draft {
        let text = |size: usize| {
            client::text(
                client_msg_id.chars().cycle().take(size.max(client_msg_id.len())).collect::<String>(),
            )
        };
        match self {
            Self::Message { size } => text(*size).into(),
            Self::Reply { to, size } => Draft::reply(to, text(*size)),
            Self::Edit { target, size } => Draft::edit(target, text(*size)),
            Self::Recall { target } => Draft::recall(target),
            Self::Reaction { target, reactions } => Draft::reaction(target, reactions.iter().copied()),
        }
    }
}

/// Settings for a device to change.
#[derive(Clone, Debug)]
pub(super) struct SettingsJob {
    /// Index of the change in the ledger.
    pub(super) number: u32,
    /// The conversation's id.
    pub(super) conversation: String,
}

impl SettingsJob {
    /// The request.
    pub(super) fn request(&self) -> SetSettings {
        let Settings { pinned, archived, draft } = Settings::of(self.number);
        SetSettings {
            conversation: self.conversation.clone(),
            pinned: Some(pinned),
            archived: Some(archived),
            draft: Some(draft),
            ..SetSettings::default()
        }
    }
}

/// A signal for a device to send.
#[derive(Clone, Debug)]
pub(super) struct SignalJob {
    /// The conversation's id.
    pub(super) conversation: String,
    /// The signal.
    pub(super) kind: signal::Kind,
}

/// A command to a device.
#[derive(Debug)]
pub(super) enum Command {
    /// Send a message.
    Send(SendJob),
    /// Change settings of a conversation.
    Settings(SettingsJob),
    /// Send a signal.
    Signal(SignalJob),
    /// Restart the program with the last saved state or an older one.
    Restart,
    /// Read no events for this time.
    Sleep(Duration),
}
