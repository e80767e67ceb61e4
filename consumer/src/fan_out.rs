//! Fan-out: groups entries and their receivers into pushes of bounded size. Each push needs one call to the cache.

use abi::{
    envelope::{self, Numbers},
    ids::Conversation,
    v1::{Envelope, Members, PushRequest, PushedEntry, Receiver, ReceiverSeq, SaveResult},
};
use bytes::Bytes;
use cache::Increment;
use std::{collections::HashMap, sync::Arc};

/// A push is full at this size in bytes, including the receivers.
const MAX_BYTES: usize = 2 << 20;
/// Most entries of a push.
const MAX_ENTRIES: usize = 1_000;
/// Encoded size of a receiver without its user id and its indexes.
const RECEIVER_BYTES: usize = 24;
/// Encoded size of the index of an entry.
const INDEX_BYTES: usize = 3;

/// The receivers of an entry.
#[derive(Clone, Debug)]
pub(crate) enum Recipients {
    /// The users in the id of a direct conversation.
    Direct,
    /// The members who may see the entry.
    Group(Arc<Members>),
}

/// An entry that is stored.
#[derive(Debug)]
pub(crate) struct StoredEntry {
    /// The encoded entry.
    pub(crate) bytes: Bytes,
    /// The fields that this service reads.
    pub(crate) envelope: Envelope,
    /// The numbers, and the effect of a change.
    pub(crate) result: SaveResult,
}

impl StoredEntry {
    /// Whether a user who sees entries from `visible_from` on may see what this entry changes.
    fn has_visible_target(&self, visible_from: u64) -> bool {
        let is_change = envelope::is_change_of_entry(&self.envelope.kind);
        !is_change || self.result.refers_to_seq >= visible_from
    }

    fn into_pushed(self) -> PushedEntry {
        let numbers = Numbers {
            conversation_seq: self.result.conversation_seq,
            countable_seq: self.result.countable_seq,
            refers_to_seq: self.result.refers_to_seq,
            state: None,
            target_state: self.result.target_state,
        };
        PushedEntry {
            entry: envelope::numbered(&self.bytes, &numbers),
            message_id: self.envelope.message_id,
            sent_at_ms: self.envelope.sent_at_ms,
        }
    }
}

impl Recipients {
    /// Calls `each` once per user, with whether the user may see the entry. A group change is also delivered to the users that it
    /// removes. A change of an entry that a user can't see is not shown to that user, but still counted: it has a number.
    fn for_each(&self, entry: &StoredEntry, mut each: impl FnMut(&str, bool)) {
        match self {
            Self::Direct => {
                if let Ok(conversation) = Conversation::parse(&entry.envelope.conversation) {
                    conversation.direct_members().for_each(|user| each(user, true));
                }
            }
            Self::Group(members) => {
                for member in &members.members {
                    if member.visible_from <= entry.result.conversation_seq {
                        each(&member.user, entry.has_visible_target(member.visible_from));
                    }
                }
                let is_member = |user: &str| members.members.iter().any(|member| member.user == user);
                let removed = entry.result.removed.iter();
                removed.filter(|user| !is_member(user)).for_each(|user| each(user, true));
            }
        }
    }
}

/// A push that is being built.
#[derive(Debug, Default)]
pub(crate) struct FanOut {
    entries: Vec<PushedEntry>,
    /// The conversations of the entries and of duplicates, with their indexes.
    conversations: HashMap<String, u32>,
    receivers: HashMap<String, Delivery>,
    /// Estimated size of the push.
    bytes: usize,
}

/// The part of a push for one user.
#[derive(Debug, Default)]
struct Delivery {
    /// Increment of the user's receiver seq: the number of entries, including duplicates.
    increment: u32,
    /// Indexes of the conversations that changed.
    conversations: Vec<u32>,
    /// Indexes of the new entries.
    entries: Vec<u32>,
}

/// Adds an entry to the last fan-out, or to a new one if that is full. An entry with `stored` is new and is delivered.
/// A duplicate only increments the receiver seqs.
pub(crate) fn add(fan_outs: &mut Vec<FanOut>, entry: StoredEntry, stored: bool, recipients: &Recipients) {
    if fan_outs.last().is_none_or(FanOut::is_full) {
        fan_outs.push(FanOut::default());
    }
    if let Some(fan_out) = fan_outs.last_mut() {
        fan_out.add(entry, stored, recipients);
    }
}

impl FanOut {
    fn is_full(&self) -> bool {
        self.entries.len() >= MAX_ENTRIES || self.bytes >= MAX_BYTES
    }

    fn add(&mut self, entry: StoredEntry, stored: bool, recipients: &Recipients) {
        let index = u32::try_from(self.entries.len()).expect("a push has few entries");
        let conversation = match self.conversations.get(&entry.envelope.conversation) {
            Some(conversation) => *conversation,
            None => {
                let next = u32::try_from(self.conversations.len()).expect("a push has few entries");
                self.conversations.insert(entry.envelope.conversation.clone(), next);
                next
            }
        };
        let Self { receivers, bytes, .. } = self;
        recipients.for_each(&entry, |user, is_visible| {
            // `HashMap::entry` would copy the user id for every entry instead of once per push.
            if !receivers.contains_key(user) {
                *bytes += user.len() + RECEIVER_BYTES;
                receivers.insert(user.to_owned(), Delivery::default());
            }
            let delivery = receivers.get_mut(user).expect("inserted above if it was missing");
            delivery.increment += 1;
            if delivery.conversations.last() != Some(&conversation) {
                delivery.conversations.push(conversation);
            }
            if stored && is_visible {
                *bytes += INDEX_BYTES;
                delivery.entries.push(index);
            }
        });
        if stored {
            let pushed = entry.into_pushed();
            self.bytes += pushed.entry.len() + pushed.message_id.len();
            self.entries.push(pushed);
        }
    }

    /// Fixes the order of the receivers.
    pub(crate) fn finish(self) -> FinishedFanOut {
        let mut conversations = vec![String::new(); self.conversations.len()];
        for (conversation, index) in self.conversations {
            conversations[index as usize] = conversation;
        }
        FinishedFanOut {
            entries: self.entries,
            conversations,
            receivers: self.receivers.into_iter().collect(),
        }
    }
}

/// A fan-out whose receivers have a fixed order.
#[derive(Debug)]
pub(crate) struct FinishedFanOut {
    entries: Vec<PushedEntry>,
    conversations: Vec<String>,
    receivers: Vec<(String, Delivery)>,
}

impl FinishedFanOut {
    /// The increments of the receivers' receiver seqs. A conversation may be named twice.
    pub(crate) fn increments(&self) -> Vec<Increment<'_>> {
        let name = |index: &u32| self.conversations[*index as usize].as_str();
        let named = |delivery: &Delivery| delivery.conversations.iter().map(name).collect();
        let receivers = self.receivers.iter();
        receivers
            .map(|(user, delivery)| Increment { user, by: delivery.increment, subjects: named(delivery) })
            .collect()
    }

    /// The push. `seqs` are the receiver seqs after the increment, in the order of [`Self::increments`].
    pub(crate) fn into_push(self, app: &str, seqs: Vec<ReceiverSeq>) -> PushRequest {
        let receiver = |((user, delivery), seq): ((String, Delivery), ReceiverSeq)| Receiver {
            user,
            receiver_seq: Some(seq),
            raised: delivery.increment,
            entries: delivery.entries,
            updates: Vec::new(),
        };
        PushRequest {
            app: app.to_owned(),
            entries: self.entries,
            receivers: self.receivers.into_iter().zip(seqs).map(receiver).collect(),
            ..PushRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::{
        envelope::{EDIT, MESSAGE},
        v1::{Entry, Member},
    };
    use prost::Message as _;

    fn members(users: &[(&str, u64)]) -> Recipients {
        let member =
            |(user, from): &(&str, u64)| Member { user: (*user).into(), role: 1, visible_from: *from };
        Recipients::Group(Arc::new(Members { version: 1, members: users.iter().map(member).collect() }))
    }

    fn entry(conversation: &str, conversation_seq: u64) -> StoredEntry {
        let kind = MESSAGE.to_owned();
        let envelope = Envelope { conversation: conversation.into(), kind, ..Envelope::default() };
        let result = SaveResult { conversation_seq, ..SaveResult::default() };
        StoredEntry { bytes: Bytes::new(), envelope, result }
    }

    fn change(seq: u64, removed: &[&str]) -> StoredEntry {
        let mut entry = entry("g:1", seq);
        entry.result.removed = removed.iter().map(|user| (*user).to_owned()).collect();
        entry
    }

    fn users(entry: &StoredEntry, recipients: &Recipients) -> Vec<String> {
        let mut users = Vec::new();
        recipients.for_each(entry, |user, is_visible| {
            users.push(if is_visible { user.to_owned() } else { format!("{user} (hidden)") })
        });
        users
    }

    #[test]
    fn p8_members_receive_visible_entries_and_removed_users_their_removal() {
        let group = members(&[("alice", 1), ("bob", 5)]);
        assert_eq!(users(&entry("g:1", 4), &group), ["alice"]);
        assert_eq!(users(&entry("g:1", 5), &group), ["alice", "bob"]);
        assert_eq!(users(&change(6, &["carol", "bob"]), &group), ["alice", "bob", "carol"]);
        assert_eq!(users(&change(7, &["dave"]), &group), ["alice", "bob", "dave"]);
        assert_eq!(users(&change(8, &[]), &group), ["alice", "bob"]);
        assert_eq!(users(&entry("d:alice:alice", 1), &Recipients::Direct), ["alice"]);
    }

    #[test]
    fn p8_an_edit_of_an_entry_that_a_member_cannot_see_is_counted_and_not_shown() {
        let mut edit = entry("g:1", 9);
        edit.envelope.kind = EDIT.into();
        edit.result.refers_to_seq = 4;
        assert_eq!(users(&edit, &members(&[("alice", 1), ("bob", 5)])), ["alice", "bob (hidden)"]);
    }

    #[test]
    fn p4_a_delivery_counts_duplicates_and_lists_new_entries_in_order() {
        let mut fan_outs = Vec::new();
        for (seq, stored) in [(1, false), (2, true), (3, true)] {
            add(&mut fan_outs, entry("d:alice:bob", seq), stored, &Recipients::Direct);
        }
        assert_eq!(fan_outs.len(), 1);
        let fan_out = fan_outs.remove(0).finish();
        let seq = |increment: &Increment<'_>| ReceiverSeq { epoch: 1, seq: 10 + u64::from(increment.by) };
        let seqs: Vec<_> = fan_out.increments().iter().map(seq).collect();
        let push = fan_out.into_push("app", seqs);
        let seq = |pushed: &PushedEntry| Entry::decode(pushed.entry.clone()).unwrap().conversation_seq;
        assert_eq!(push.entries.iter().map(seq).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(push.receivers.len(), 2);
        for receiver in push.receivers {
            assert_eq!((receiver.raised, receiver.receiver_seq.unwrap().seq), (3, 13));
            assert_eq!(receiver.entries, [0, 1]);
        }
    }

    #[test]
    fn p5_an_increment_names_the_conversations_that_changed() {
        let mut fan_outs = Vec::new();
        for (conversation, stored) in
            [("d:alice:bob", true), ("d:alice:bob", true), ("d:alice:carol", false), ("d:bob:carol", true)]
        {
            add(&mut fan_outs, entry(conversation, 1), stored, &Recipients::Direct);
        }
        let fan_out = fan_outs.remove(0).finish();
        let mut increments = fan_out.increments();
        increments.sort_by_key(|increment| increment.user);
        let increment = |user, by, subjects: [_; 2]| Increment { user, by, subjects: subjects.to_vec() };
        assert_eq!(
            increments,
            [
                increment("alice", 3, ["d:alice:bob", "d:alice:carol"]),
                increment("bob", 3, ["d:alice:bob", "d:bob:carol"]),
                increment("carol", 2, ["d:alice:carol", "d:bob:carol"]),
            ]
        );
    }

    #[test]
    fn p7_a_push_is_bounded_by_entries_and_by_bytes() {
        let mut fan_outs = Vec::new();
        for seq in 0..2_500 {
            add(&mut fan_outs, entry("d:alice:bob", seq), true, &Recipients::Direct);
        }
        assert_eq!(
            fan_outs.iter().map(|fan_out| fan_out.entries.len()).collect::<Vec<_>>(),
            [1_000, 1_000, 500]
        );
        // Duplicates add no entries, but their receivers add to the size.
        let users: Vec<_> = (0..500).map(|number| format!("{number:064}")).collect();
        let mut fan_outs = Vec::new();
        for group in 0..1_000 {
            let users: Vec<_> = users.iter().map(|user| format!("{group}-{}", &user[8..])).collect();
            let users: Vec<_> = users.iter().map(|user| (user.as_str(), 1)).collect();
            add(&mut fan_outs, entry("g:1", 9), false, &members(&users));
        }
        assert!(fan_outs.len() > 10);
        for fan_out in fan_outs {
            let fan_out = fan_out.finish();
            let seqs = vec![ReceiverSeq { epoch: u32::MAX, seq: u64::MAX }; fan_out.receivers.len()];
            assert!(fan_out.into_push("app", seqs).encoded_len() < 2 * MAX_BYTES);
        }
    }
}
