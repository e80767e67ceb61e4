//! What a device remembers between connections and restarts.

use abi::v1::{Entry, ReceiverSeq};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a device has: enough to go on after a restart and to see each entry once.
///
/// It is behind what was received, never ahead: it moves when the application takes an entry out of the events. It goes back
/// only when the server's data did, see [`crate::Event::Restored`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The receiver's seq up to which the device has everything; `None`: it can't tell.
    pub have: Option<Have>,
    /// Per conversation, the `conversation_seq` up to which the device has everything that it may see.
    pub positions: BTreeMap<String, u64>,
    /// Generation of the server's data that the positions are of.
    #[serde(default)]
    pub generation: u32,
}

/// A receiver's seq as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Have {
    /// Numbers of different epochs can't be compared.
    pub epoch: u32,
    /// Number of changes.
    pub seq: u64,
}

impl State {
    /// Whether nothing was ever received.
    pub fn is_new(&self) -> bool {
        self.have.is_none() && self.positions.is_empty()
    }

    /// Takes note of another generation, and of how far what was seen is the same there.
    pub(crate) fn restored(&mut self, generation: u32, kept: &BTreeMap<String, u64>) {
        self.generation = generation;
        if !kept.is_empty() {
            // The receiver's seq may stand where it stood, and what follows the kept entries is not here.
            self.have = None;
        }
        for (conversation, kept) in kept {
            // Also a 0 stays: without any position this were a device that never received anything.
            if let Some(position) = self.positions.get_mut(conversation) {
                *position = (*position).min(*kept);
            }
        }
    }

    /// Takes note of an entry.
    pub(crate) fn took(&mut self, entry: &Entry) {
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
