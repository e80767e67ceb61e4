//! Who receives what, in portions that one raise and one push can carry.

use abi::{
    ids::Conversation,
    v1::{
        Entry, GroupChange, Members, MembersRemoved, PushRequest, Receiver, ReceiverSeq, entry::Content,
        group_change::Change,
    },
};
use prost::Message as _;
use std::{collections::HashMap, sync::Arc};

/// About how many bytes a push may have, receivers included.
const MAX_BYTES: usize = 2 << 20;
/// Most entries of a push.
const MAX_ENTRIES: usize = 1_000;
/// Bytes of a receiver beside the user's id, and of an index.
const RECEIVER_BYTES: usize = 24;
const INDEX_BYTES: usize = 3;

/// Who receives an entry.
#[derive(Clone, Debug)]
pub(crate) enum Recipients {
    /// The users that the conversation's id names.
    Direct,
    /// The members who can see it.
    Group(Arc<Members>),
}

impl Recipients {
    /// Calls `each` for every user once. Users whom a change of the group has removed learn of it too.
    fn for_each(&self, entry: &Entry, mut each: impl FnMut(&str)) {
        match self {
            Self::Direct => {
                if let Ok(conversation) = Conversation::parse(&entry.conversation) {
                    conversation.direct_members().for_each(each);
                }
            }
            Self::Group(members) => {
                for member in &members.members {
                    if member.visible_from <= entry.conversation_seq {
                        each(&member.user);
                    }
                }
                let is_member = |user: &str| members.members.iter().any(|member| member.user == user);
                gone(entry).iter().filter(|user| !is_member(user)).for_each(|user| each(user));
            }
        }
    }
}

/// The users who are out of the group by an entry.
fn gone(entry: &Entry) -> &[String] {
    let Some(Content::GroupChange(GroupChange { change: Some(change) })) = &entry.content else { return &[] };
    match change {
        Change::Removed(MembersRemoved { users }) => users,
        Change::Left(_) => std::slice::from_ref(&entry.sender),
        Change::Created(_) | Change::Added(_) => &[],
    }
}

/// What some users receive.
#[derive(Debug, Default)]
pub(crate) struct Portion {
    entries: Vec<Entry>,
    shares: HashMap<String, Share>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Share {
    /// How much there is, duplicates included.
    raised: u32,
    /// Indexes of the entries.
    entries: Vec<u32>,
}

/// Adds an entry to the last portion, or to a new one when that is full.
pub(crate) fn add(portions: &mut Vec<Portion>, entry: Entry, stored: bool, recipients: &Recipients) {
    if portions.last().is_none_or(Portion::is_full) {
        portions.push(Portion::default());
    }
    if let Some(portion) = portions.last_mut() {
        portion.add(entry, stored, recipients);
    }
}

impl Portion {
    fn is_full(&self) -> bool {
        self.entries.len() >= MAX_ENTRIES || self.bytes >= MAX_BYTES
    }

    /// `stored`: now, so it is delivered. Otherwise it was before: its receivers are only told that there is something.
    fn add(&mut self, entry: Entry, stored: bool, recipients: &Recipients) {
        let index = u32::try_from(self.entries.len()).expect("a portion has few entries");
        let Self { shares, bytes, .. } = self;
        recipients.for_each(&entry, |user| {
            // Not `entry`: an id is copied once per portion, not once per message.
            if !shares.contains_key(user) {
                *bytes += user.len() + RECEIVER_BYTES;
                shares.insert(user.to_owned(), Share::default());
            }
            let share = shares.get_mut(user).expect("inserted above when it was missing");
            share.raised += 1;
            if stored {
                *bytes += INDEX_BYTES;
                share.entries.push(index);
            }
        });
        if stored {
            self.bytes += entry.encoded_len();
            self.entries.push(entry);
        }
    }

    /// Splits it into what is raised and what is pushed after that.
    pub(crate) fn finish(self) -> Raised {
        Raised { entries: self.entries, shares: self.shares.into_iter().collect() }
    }
}

/// A portion whose users have an order.
#[derive(Debug)]
pub(crate) struct Raised {
    entries: Vec<Entry>,
    shares: Vec<(String, Share)>,
}

impl Raised {
    /// Users and by how much their counters rise.
    pub(crate) fn users(&self) -> Vec<(&str, u32)> {
        self.shares.iter().map(|(user, share)| (user.as_str(), share.raised)).collect()
    }

    /// The push, with the counters after the raise in the order of [`Self::users`].
    pub(crate) fn into_push(self, app: &str, seqs: Vec<ReceiverSeq>) -> PushRequest {
        let receiver = |((user, share), seq): ((String, Share), ReceiverSeq)| Receiver {
            user,
            receiver_seq: Some(seq),
            raised: share.raised,
            entries: share.entries,
        };
        PushRequest {
            app: app.to_owned(),
            entries: self.entries,
            receivers: self.shares.into_iter().zip(seqs).map(receiver).collect(),
            receipts: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{Member, MemberLeft, MembersAdded};

    fn members(users: &[(&str, u64)]) -> Recipients {
        let member =
            |(user, from): &(&str, u64)| Member { user: (*user).into(), role: 1, visible_from: *from };
        Recipients::Group(Arc::new(Members { version: 1, members: users.iter().map(member).collect() }))
    }

    fn entry(conversation: &str, conversation_seq: u64) -> Entry {
        Entry { conversation: conversation.into(), conversation_seq, ..Entry::default() }
    }

    fn change(seq: u64, sender: &str, change: Change) -> Entry {
        let content = Some(Content::GroupChange(GroupChange { change: Some(change) }));
        Entry { sender: sender.into(), content, ..entry("g:1", seq) }
    }

    fn users(entry: &Entry, recipients: &Recipients) -> Vec<String> {
        let mut users = Vec::new();
        recipients.for_each(entry, |user| users.push(user.to_owned()));
        users
    }

    #[test]
    fn p8_members_get_what_they_can_see_and_removed_ones_their_removal() {
        let group = members(&[("alice", 1), ("bob", 5)]);
        assert_eq!(users(&entry("g:1", 4), &group), ["alice"]);
        assert_eq!(users(&entry("g:1", 5), &group), ["alice", "bob"]);
        let removed = Change::Removed(MembersRemoved { users: vec!["carol".into(), "bob".into()] });
        assert_eq!(users(&change(6, "alice", removed), &group), ["alice", "bob", "carol"]);
        assert_eq!(users(&change(7, "dave", Change::Left(MemberLeft {})), &group), ["alice", "bob", "dave"]);
        let added = Change::Added(MembersAdded { users: vec!["erin".into()] });
        assert_eq!(users(&change(8, "alice", added), &group), ["alice", "bob"]);
        assert_eq!(users(&entry("d:alice:alice", 1), &Recipients::Direct), ["alice"]);
    }

    #[test]
    fn p4_a_share_counts_duplicates_and_lists_what_is_new_in_order() {
        let mut portions = Vec::new();
        for (seq, stored) in [(1, false), (2, true), (3, true)] {
            add(&mut portions, entry("d:alice:bob", seq), stored, &Recipients::Direct);
        }
        assert_eq!(portions.len(), 1);
        let raised = portions.remove(0).finish();
        let seqs: Vec<_> =
            raised.users().iter().map(|(_, by)| ReceiverSeq { epoch: 1, seq: 10 + u64::from(*by) }).collect();
        let push = raised.into_push("app", seqs);
        assert_eq!(push.entries.iter().map(|entry| entry.conversation_seq).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(push.receivers.len(), 2);
        for receiver in push.receivers {
            assert_eq!((receiver.raised, receiver.receiver_seq.unwrap().seq), (3, 13));
            assert_eq!(receiver.entries, [0, 1]);
        }
    }

    #[test]
    fn p7_a_portion_is_bounded_by_entries_and_by_bytes() {
        let mut portions = Vec::new();
        for seq in 0..2_500 {
            add(&mut portions, entry("d:alice:bob", seq), true, &Recipients::Direct);
        }
        assert_eq!(
            portions.iter().map(|portion| portion.entries.len()).collect::<Vec<_>>(),
            [1_000, 1_000, 500]
        );
        // Nudges have no entries, but their receivers take room too.
        let users: Vec<_> = (0..500).map(|number| format!("{number:064}")).collect();
        let mut portions = Vec::new();
        for group in 0..1_000 {
            let users: Vec<_> = users.iter().map(|user| format!("{group}-{}", &user[8..])).collect();
            let users: Vec<_> = users.iter().map(|user| (user.as_str(), 1)).collect();
            add(&mut portions, entry("g:1", 9), false, &members(&users));
        }
        assert!(portions.len() > 10);
        for portion in portions {
            let raised = portion.finish();
            let seqs = vec![ReceiverSeq { epoch: u32::MAX, seq: u64::MAX }; raised.shares.len()];
            assert!(raised.into_push("app", seqs).encoded_len() < 2 * MAX_BYTES);
        }
    }
}
