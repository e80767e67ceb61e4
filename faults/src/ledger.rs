//! What the workload saw: every send with its outcome, every receipt of every device, every claim of the server that
//! a device is up to date. The checker compares it with the store.
//!
//! Users, devices and conversations are numbers into the ledger's lists, and times are milliseconds of the run: an hour
//! of a run has millions of receipts.

use abi::v1::entry;
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fmt,
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufReader, BufWriter, Write as _},
    path::Path,
    process::{Command, Stdio},
};

/// Number of a user in [`Ledger::users`].
pub type User = u32;
/// Number of a device in [`Ledger::devices`].
pub type DeviceId = u32;
/// Number of a conversation in [`Ledger::conversations`].
pub type Conversation = u32;
/// Sixteen bytes that are written in hexadecimal: a message id, or a device's own id of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Id(pub [u8; 16]);

impl Id {
    /// Reads 32 hexadecimal digits; dashes are passed over.
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

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not 32 hexadecimal digits")
    }
}

/// A number for all that an entry says: who says it, the sender's own id of it, and its whole content. Of entries that say
/// something else it is another one.
pub(super) fn digest(sender: &str, client_msg_id: &str, content: Option<&entry::Content>) -> u64 {
    let mut bytes = Vec::new();
    if let Some(content) = content {
        content.encode(&mut bytes);
    }
    let mut hasher = DefaultHasher::new();
    (sender, client_msg_id, bytes).hash(&mut hasher);
    hasher.finish()
}

/// Milliseconds since the workload was started.
pub type Millis = u32;

/// All that was seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// The run's seed.
    pub seed: u64,
    /// Names of the users.
    pub users: Vec<String>,
    /// Ids of the conversations.
    pub conversations: Vec<String>,
    /// Devices with what they received.
    pub devices: Vec<Device>,
    /// What was sent, in the order in which it was begun.
    pub sends: Vec<Send>,
    /// Acknowledgements beside the first of a send: of retries after it.
    pub later_acks: Vec<LaterAck>,
    /// Changes of groups that the server answered.
    pub changes: Vec<Change>,
    /// What a member reads as the history of each conversation at the end.
    pub histories: Vec<History>,
    /// Devices that the server or the SDK ended for good, with the reason.
    pub ended: Vec<(DeviceId, Millis, String)>,
    /// What was still open when waiting for the end was over: nothing, in a good run.
    pub unfinished: Vec<String>,
}

/// Who runs a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The SDK.
    Sdk,
    /// The protocol by hand.
    Raw,
}

/// A device and what it received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Whose.
    pub user: User,
    /// Its name, unique to its user.
    pub name: String,
    /// Who runs it.
    pub kind: Kind,
    /// Its lives: a life begins with a state that was kept, and shows each entry once.
    pub lives: Vec<Life>,
}

/// A device from one start of its program to the next.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Life {
    /// When it began.
    pub began: Millis,
    /// Per conversation, up to where the kept state had everything.
    pub positions: Vec<(Conversation, u32)>,
    /// What it was shown, and what it was told, in order.
    pub seen: Vec<Seen>,
}

/// One thing that a device saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen {
    /// An entry was shown.
    Entry(Receipt),
    /// The server's receiver's seq is the device's, or what was missing up to it has been fetched: the device has all
    /// that was counted up to there.
    Complete {
        /// Epoch of the receiver's seq.
        epoch: u32,
        /// The receiver's seq.
        seq: u64,
        /// When.
        at: Millis,
    },
    /// An entry was delivered with a receiver's seq that counts it, whether or not it was shown then.
    Counted {
        /// Where.
        conversation: Conversation,
        /// Which.
        conversation_seq: u32,
        /// Its id.
        message_id: Id,
        /// All that it says.
        digest: u64,
        /// Epoch of the receiver's seq.
        epoch: u32,
        /// The receiver's seq that counts it.
        seq: u64,
        /// When.
        at: Millis,
    },
    /// The server's receiver's seq is the device's, and nothing is missing up to it: there is no news for the device.
    UpToDate {
        /// When the question was asked.
        asked: Millis,
    },
    /// The server named a conversation as one of the user's.
    Head {
        /// Which.
        conversation: Conversation,
        /// Its last number.
        conversation_seq: u32,
        /// The first number that the user may see of it.
        visible_from: u32,
    },
    /// The server said that the user has read less than it had said before.
    Unread {
        /// Where.
        conversation: Conversation,
        /// Up to where, as it says now.
        read: u32,
        /// Up to where, as it had said.
        known: u32,
        /// When.
        at: Millis,
    },
    /// An entry had been delivered, and history asked for it afterwards did not give it.
    Unreadable {
        /// Where.
        conversation: Conversation,
        /// Which.
        conversation_seq: u32,
        /// What the answer was instead.
        answer: Instead,
        /// When.
        at: Millis,
    },
}

/// What was read in place of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Instead {
    /// Nothing.
    Nothing,
    /// Another entry.
    Other,
    /// An error that will not pass.
    Refusal,
}

/// An entry that a device was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Where.
    pub conversation: Conversation,
    /// Its number.
    pub conversation_seq: u32,
    /// Its id.
    pub message_id: Id,
    /// All that it says.
    pub digest: u64,
    /// When.
    pub at: Millis,
    /// Whether the device had been up to date before.
    pub live: bool,
}

/// A message that a device tried to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// From which device.
    pub device: DeviceId,
    /// Where to.
    pub conversation: Conversation,
    /// The device's own id.
    pub client_msg_id: Id,
    /// All that it says.
    pub digest: u64,
    /// When it was given to the device. Sends of one device to one conversation are in this order in the ledger.
    pub began: Millis,
    /// Whether the protocol promises its place among the device's sends: not for one that another device sends as well, and not
    /// for one that was refused for good after a first attempt.
    pub ordered: bool,
    /// The user has no right to send it: it has to be refused.
    pub forbidden: bool,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Nobody knows: it may be stored, once.
    #[default]
    Unknown,
    /// The server has it durably.
    Acked {
        /// Its id.
        message_id: Id,
        /// When the acknowledgement came.
        at: Millis,
    },
    /// The server will not take it.
    Refused {
        /// The error's name.
        code: String,
        /// When.
        at: Millis,
        /// Whether no attempt before may have been taken.
        at_once: bool,
    },
}

/// An acknowledgement of a send that had one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaterAck {
    /// Number of the send in [`Ledger::sends`].
    pub send: u32,
    /// Id that it told.
    pub message_id: Id,
    /// When.
    pub at: Millis,
}

/// A change of a group that was answered with success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The group.
    pub conversation: Conversation,
    /// Its number in the group, as answered.
    pub conversation_seq: u32,
    /// Its id, as answered.
    pub message_id: Id,
    /// Who joined or was removed.
    pub user: User,
    /// Joined, or removed.
    pub joined: bool,
    /// When it was asked for first.
    pub began: Millis,
    /// When the answer came.
    pub at: Millis,
}

/// What a member reads as the history of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Which.
    pub conversation: Conversation,
    /// Who read.
    pub user: User,
    /// Numbers, ids and all that they say, in the order of the pages.
    pub entries: Vec<(u32, Id, u64)>,
}

impl Ledger {
    /// How many sends were acknowledged.
    pub fn acked(&self) -> u64 {
        self.sends.iter().filter(|send| matches!(send.outcome, Outcome::Acked { .. })).count() as u64
    }

    /// A device, for people.
    pub fn device_name(&self, device: DeviceId) -> String {
        let Device { user, name, kind, .. } = &self.devices[device as usize];
        format!("{}/{name} ({kind:?})", self.users[*user as usize])
    }

    /// Writes it to a file, as JSON that `gzip` has compressed.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, self)
    }

    /// Reads what [`Ledger::write`] wrote.
    ///
    /// # Errors
    /// If it is not such a file.
    pub fn read(path: &Path) -> Result<Self> {
        read(path)
    }
}

/// Writes something as compressed JSON.
pub(super) fn write(path: &Path, what: &impl Serialize) -> Result<()> {
    let file = File::create(path).with_context(|| format!("write {}", path.display()))?;
    let mut gzip =
        Command::new("gzip").arg("-1").stdin(Stdio::piped()).stdout(file).spawn().context("run gzip")?;
    let mut out = BufWriter::new(gzip.stdin.take().context("gzip takes no input")?);
    serde_json::to_writer(&mut out, what)?;
    out.flush()?;
    drop(out);
    ensure!(gzip.wait()?.success(), "gzip failed to write {}", path.display());
    Ok(())
}

/// Reads what [`write`] wrote.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = File::open(path).with_context(|| format!("read {}", path.display()))?;
    let mut gzip =
        Command::new("gzip").arg("-dc").stdin(file).stdout(Stdio::piped()).spawn().context("run gzip")?;
    let out = gzip.stdout.take().context("gzip gives no output")?;
    let read = serde_json::from_reader(BufReader::new(out))?;
    gzip.wait()?;
    Ok(read)
}
