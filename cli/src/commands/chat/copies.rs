//! The messages on the screen, in their current state.

use abi::{envelope, v1::Entry};
use client::{Applied, apply};
use std::collections::BTreeMap;

/// Most copies; older messages are read again when they are needed.
const MAX_COPIES: usize = 1_000;

/// Whether an entry is a message, which can be answered. Changes of messages and of groups are no messages.
pub(super) fn is_message(entry: &Entry) -> bool {
    !envelope::is_change_of_entry(&entry.kind) && entry.kind != envelope::GROUP
}

/// Copies of the last messages, by conversation_seq.
#[derive(Default)]
pub(super) struct Copies {
    messages: BTreeMap<u64, Entry>,
}

impl Copies {
    /// Keeps a message; does nothing for another entry.
    pub(super) fn keep(&mut self, entry: &Entry) {
        if !is_message(entry) {
            return;
        }
        self.messages.insert(entry.conversation_seq, entry.clone());
        if self.messages.len() > MAX_COPIES {
            self.messages.pop_first();
        }
    }

    /// Forgets messages after a number, which were lost in a restore.
    pub(super) fn forget_after(&mut self, seq: u64) {
        self.messages.split_off(&seq.saturating_add(1));
    }

    pub(super) fn get(&self, seq: u64) -> Option<&Entry> {
        self.messages.get(&seq)
    }

    /// The last message that is not recalled, of `user` or of the others.
    pub(super) fn last(&self, user: &str, own: bool) -> Option<&Entry> {
        let is_recalled =
            |entry: &Entry| entry.state.as_ref().is_some_and(|state| !state.recalled_by.is_empty());
        self.messages.values().rev().find(|entry| (entry.sender == user) == own && !is_recalled(entry))
    }

    /// Applies a change to its message. Returns whether the message has to be read again.
    pub(super) fn apply(&mut self, change: &Entry, me: &str) -> bool {
        let target = self.messages.get_mut(&change.refers_to_seq);
        target.is_some_and(|target| apply(change, target, me) == Applied::Incomplete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::EntryState;
    use client::text;

    fn message(seq: u64, sender: &str) -> Entry {
        Entry {
            conversation_seq: seq,
            message_id: seq.to_string(),
            sender: sender.into(),
            kind: envelope::MESSAGE.into(),
            content: Some(text("hi")),
            ..Entry::default()
        }
    }

    #[test]
    fn the_last_message_is_one_that_is_not_recalled() {
        let mut copies = Copies::default();
        for (seq, sender) in [(1, "alice"), (2, "bob"), (3, "alice")] {
            copies.keep(&message(seq, sender));
        }
        let seq = |copies: &Copies, own| copies.last("alice", own).map(|entry| entry.conversation_seq);
        assert_eq!((seq(&copies, true), seq(&copies, false)), (Some(3), Some(2)));
        let recall = Entry {
            kind: envelope::RECALL.into(),
            refers_to: "3".into(),
            refers_to_seq: 3,
            target_state: Some(EntryState {
                changed_seq: 4,
                recalled_by: "alice".into(),
                ..EntryState::default()
            }),
            ..message(4, "alice")
        };
        copies.keep(&recall);
        assert!(!copies.apply(&recall, "alice"));
        assert_eq!(seq(&copies, true), Some(1));
        copies.forget_after(1);
        assert_eq!((seq(&copies, true), seq(&copies, false)), (Some(1), None));
    }

    #[test]
    fn p7_the_number_of_copies_is_bounded() {
        let mut copies = Copies::default();
        for seq in 1..=MAX_COPIES as u64 + 5 {
            copies.keep(&message(seq, "bob"));
        }
        assert_eq!(copies.messages.len(), MAX_COPIES);
        assert!(copies.get(5).is_none() && copies.get(6).is_some());
    }
}
