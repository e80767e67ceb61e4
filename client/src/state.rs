//! The progress of a device, kept across connections and restarts.

use abi::v1::{Entry, ReceiverSeq};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The progress of a device: enough to continue after a restart and to see each entry once.
///
/// It is never ahead of the application: it moves when the application takes an entry from [`crate::Events`]. It goes
/// back only after a restore of the server's data, see [`crate::Event::Restored`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The receiver seq up to which the device has all entries; `None`: unknown.
    pub have: Option<Have>,
    /// Per conversation, the `conversation_seq` up to which the device has all entries that it may see.
    pub positions: BTreeMap<String, u64>,
    /// The generation of the server's data that the positions refer to.
    #[serde(default)]
    pub generation: u32,
}

/// A receiver seq in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Have {
    /// Seqs of different epochs cannot be compared.
    pub epoch: u32,
    /// Number of changes.
    pub seq: u64,
}

impl State {
    /// Whether the device has never received an entry.
    pub fn is_new(&self) -> bool {
        self.have.is_none() && self.positions.is_empty()
    }

    /// Moves into another generation; `kept` are the positions that go back.
    pub(crate) fn restore(&mut self, generation: u32, kept: &BTreeMap<String, u64>) {
        self.generation = generation;
        if !kept.is_empty() {
            // The receiver seq may be unchanged although the entries after the kept ones are missing here.
            self.have = None;
        }
        for (conversation, kept) in kept {
            // A position of 0 stays in the map: without any position the device would count as new.
            if let Some(position) = self.positions.get_mut(conversation) {
                *position = (*position).min(*kept);
            }
        }
    }

    /// Moves the position past an entry.
    pub(crate) fn record(&mut self, entry: &Entry) {
        match self.positions.get_mut(&entry.conversation) {
            Some(position) => *position = (*position).max(entry.conversation_seq),
            None => {
                self.positions.insert(entry.conversation.clone(), entry.conversation_seq);
            }
        }
    }
}

impl From<ReceiverSeq> for Have {
    fn from(seq: ReceiverSeq) -> Self {
        Self { epoch: seq.epoch, seq: seq.seq }
    }
}

impl From<Have> for ReceiverSeq {
    fn from(have: Have) -> Self {
        Self { epoch: have.epoch, seq: have.seq }
    }
}
