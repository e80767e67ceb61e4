//! The record of a run: every send with its outcome, every entry that a device showed, and every statement of the server
//! that a device is up to date. The checker compares the ledger with the store.
//!
//! A run of an hour has millions of observations. So users, devices and conversations are indices into the ledger's lists, and
//! times are milliseconds since the start of the workload.

mod archive;
mod digest;
mod id;
mod observation;
mod user_state;

pub(crate) use archive::{read, write};
pub(crate) use digest::{body_of, digest, digest_of, identity_of, own_state_of, state_of};
pub use id::Id;
pub use observation::{FailedRead, Observation, Receipt};
pub use user_state::{FinalHead, SentSignal, Settings, SettingsChange};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Index into [`Ledger::users`].
pub type User = u32;
/// Index into [`Ledger::devices`].
pub type DeviceId = u32;
/// Index into [`Ledger::conversations`].
pub type Conversation = u32;
/// Milliseconds since the start of the workload.
pub type Millis = u32;

/// Code of a send that its device did not accept, because its command queue was full. No attempt reached the server.
pub const NOT_TAKEN: &str = "not_taken";

/// Everything that the workload did and observed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// The run's seed.
    pub seed: u64,
    /// Names of the users.
    pub users: Vec<String>,
    /// Ids of the conversations.
    pub conversations: Vec<String>,
    /// Devices with their observations.
    pub devices: Vec<Device>,
    /// Sends, in the order in which they began.
    pub sends: Vec<Send>,
    /// Acknowledgements of retries, after the first acknowledgement of their send.
    pub later_acks: Vec<LaterAck>,
    /// Membership changes that the server answered with success.
    pub changes: Vec<MembershipChange>,
    /// Histories that users read through the API at the end of the run.
    pub histories: Vec<History>,
    /// Changes of settings, in the order in which they began. At most one per user is unanswered, as far as the server answers in time.
    pub settings: Vec<SettingsChange>,
    /// Signals, in the order in which they began.
    pub signals: Vec<SentSignal>,
    /// All heads of all users at the end of the run.
    pub heads: Vec<FinalHead>,
    /// Devices that ended with a permanent error, with the time and the error.
    pub ended: Vec<(DeviceId, Millis, String)>,
    /// Work that was still open when the final phase timed out. Empty in a good run.
    pub unfinished: Vec<String>,
}

/// The implementation of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// The SDK.
    Sdk,
    /// The suite's own implementation of the protocol.
    Raw,
}

/// A device and its observations.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Its user.
    pub user: User,
    /// Its name, unique for the user.
    pub name: String,
    /// Its implementation.
    pub kind: DeviceKind,
    /// Its incarnations, oldest first.
    pub incarnations: Vec<Incarnation>,
}

/// A device between two starts of its program. It begins with a saved state, and must show each entry once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Incarnation {
    /// When it began.
    pub began: Millis,
    /// The positions in the saved state.
    pub positions: Vec<(Conversation, u32)>,
    /// Its observations, in order.
    pub observations: Vec<Observation>,
}

/// An entry that a device tried to send: a message or a change of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// The sending device.
    pub device: DeviceId,
    /// The conversation.
    pub conversation: Conversation,
    /// The `client_msg_id`.
    pub client_msg_id: Id,
    /// Digest of everything that the sender determines.
    pub digest: u64,
    /// The message that it changes, if it is an edit, a recall or a reaction.
    pub target: Option<Id>,
    /// When the device got the command to send it. Sends of one device to one conversation are in this order in the ledger.
    pub began: Millis,
    /// Whether the protocol guarantees its order among the device's sends. It does not for changes of messages, or if a later
    /// attempt was refused permanently.
    pub ordered: bool,
    /// The user is not a member, or not the author of the message to edit: the server must refuse it.
    pub forbidden: bool,
    /// Its outcome.
    pub outcome: Outcome,
}

/// The outcome of a send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// No final answer: the message may be stored, but at most once.
    #[default]
    Unknown,
    /// The server acknowledged it.
    Acked {
        /// The message id.
        message_id: Id,
        /// When the acknowledgement came.
        at: Millis,
    },
    /// The server refused it permanently.
    Refused {
        /// The name of the error code.
        code: String,
        /// When.
        at: Millis,
        /// Whether it was the first attempt, so that no earlier attempt can have been accepted.
        first_attempt: bool,
    },
}

/// An acknowledgement of a retry, after the send was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterAck {
    /// Index into [`Ledger::sends`].
    pub send: u32,
    /// The message id in it.
    pub message_id: Id,
    /// When.
    pub at: Millis,
}

/// A membership change that was answered with success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipChange {
    /// The group.
    pub conversation: Conversation,
    /// The answered `conversation_seq`.
    pub conversation_seq: u32,
    /// The answered message id.
    pub message_id: Id,
    /// The user who joined or was removed.
    pub user: User,
    /// Whether the user joined.
    pub joined: bool,
    /// When the first attempt began.
    pub began: Millis,
    /// When the answer came.
    pub at: Millis,
}

/// The history of a conversation as one user read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The conversation.
    pub conversation: Conversation,
    /// The reader.
    pub user: User,
    /// `conversation_seq`, message id, digest, and digest of the reader's own state of each entry, in the order of the pages.
    pub entries: Vec<(u32, Id, u64, u64)>,
}

impl Ledger {
    /// The number of acknowledged sends.
    pub fn acked(&self) -> u64 {
        self.sends.iter().filter(|send| matches!(send.outcome, Outcome::Acked { .. })).count() as u64
    }

    /// A readable name of a device.
    pub fn device_name(&self, device: DeviceId) -> String {
        let Device { user, name, kind, .. } = &self.devices[device as usize];
        format!("{}/{name} ({kind:?})", self.users[*user as usize])
    }

    /// Writes the ledger to a file, as JSON compressed with gzip.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, self)
    }

    /// Reads a file of [`Ledger::write`].
    ///
    /// # Errors
    /// If the file can't be read or decoded.
    pub fn read(path: &Path) -> Result<Self> {
        read(path)
    }
}

/// A `conversation_seq` as the ledger stores it.
pub(crate) fn narrow(conversation_seq: u64) -> u32 {
    u32::try_from(conversation_seq).unwrap_or(u32::MAX)
}
