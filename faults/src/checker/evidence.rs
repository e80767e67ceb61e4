//! The ledger and the store, indexed so that each side's record of the same thing is easy to find.

use super::versions::{self, Version, Versions};
use crate::{
    ledger::{Conversation, DeviceId, Id, Ledger, Outcome, Send, User},
    store::{self, Content, StoreView, Stored},
};
use std::collections::{HashMap, HashSet};

/// A stretch of a conversation in which a user was a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// The first `conversation_seq` that the user may see.
    pub(super) visible_from: u64,
    /// The `conversation_seq` with which the user joined.
    pub(super) joined: u64,
    /// The `conversation_seq` with which the user left or was removed, the last one that they may see.
    pub(super) left: Option<u64>,
}

impl Membership {
    fn covers(self, seq: u64) -> bool {
        self.visible_from <= seq && self.left.is_none_or(|left| seq <= left)
    }
}

/// Both sides of the comparison.
pub(super) struct Evidence<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) store: &'a StoreView,
    /// By the ledger's index; `None` if nothing is stored.
    conversations: Vec<Option<&'a store::Conversation>>,
    /// The `conversation_seq` of each stored message.
    seqs: HashMap<(Conversation, Id), u64>,
    /// Stored messages by sending device and `client_msg_id`.
    by_client_id: HashMap<(Conversation, DeviceId, Id), &'a Stored>,
    memberships: HashMap<(Conversation, User), Vec<Membership>>,
    acked: HashSet<(Conversation, Id)>,
    users: HashMap<&'a str, User>,
    /// By the names of user and device.
    devices: HashMap<(&'a str, &'a str), DeviceId>,
    /// The versions of changed messages, by conversation.
    versions: Vec<Versions>,
}

impl<'a> Evidence<'a> {
    pub(super) fn new(ledger: &'a Ledger, store: &'a StoreView) -> Self {
        let conversations: Vec<_> =
            ledger.conversations.iter().map(|id| store.conversations.get(id)).collect();
        let mut evidence = Self {
            ledger,
            store,
            conversations,
            seqs: HashMap::new(),
            by_client_id: HashMap::new(),
            memberships: HashMap::new(),
            acked: HashSet::new(),
            users: HashMap::new(),
            devices: (0..)
                .zip(&ledger.devices)
                .map(|(number, device)| {
                    ((ledger.users[device.user as usize].as_str(), device.name.as_str()), number)
                })
                .collect(),
            versions: Vec::new(),
        };
        let users: HashMap<&str, User> =
            ledger.users.iter().enumerate().map(|(number, name)| (name.as_str(), number as User)).collect();
        for (number, id) in ledger.conversations.iter().enumerate() {
            let number = number as Conversation;
            let entries = evidence.entries(number);
            evidence
                .seqs
                .extend(entries.iter().map(|entry| ((number, entry.message_id), entry.conversation_seq)));
            let by_client_id = entries.iter().filter_map(|entry| {
                Some(((number, evidence.device_of(entry)?, Id::parse(&entry.client_msg_id)?), entry))
            });
            let by_client_id: Vec<_> = by_client_id.collect();
            evidence.by_client_id.extend(by_client_id);
            let direct = abi::ids::Conversation::parse(id).into_iter();
            for user in
                direct.flat_map(abi::ids::Conversation::direct_members).filter_map(|name| users.get(name))
            {
                let membership = Membership { visible_from: 1, joined: 1, left: None };
                evidence.memberships.insert((number, *user), vec![membership]);
            }
            evidence.replay_membership(number, entries, &users);
            evidence.versions.push(versions::replay(entries));
        }
        evidence.users = users;
        let acked = ledger.sends.iter().filter_map(|send| match send.outcome {
            Outcome::Acked { message_id, .. } => Some((send.conversation, message_id)),
            _ => None,
        });
        evidence.acked = acked.collect();
        evidence
    }

    /// Derives the memberships of a group from its entries.
    fn replay_membership(
        &mut self,
        conversation: Conversation,
        entries: &[Stored],
        users: &HashMap<&str, User>,
    ) {
        let mut sees_all = false;
        for entry in entries {
            let seq = entry.conversation_seq;
            let (joined, left): (Vec<&str>, Vec<&str>) = match &entry.content {
                Content::Created { members, sees_all: all } => {
                    sees_all = *all;
                    (members.iter().map(String::as_str).chain([entry.sender.as_str()]).collect(), Vec::new())
                }
                Content::Added(added) => (added.iter().map(String::as_str).collect(), Vec::new()),
                Content::Removed(removed) => (Vec::new(), removed.iter().map(String::as_str).collect()),
                Content::Left => (Vec::new(), vec![&entry.sender]),
                Content::Message { .. }
                | Content::Edit
                | Content::Recall
                | Content::Reaction(_)
                | Content::Undecodable => continue,
            };
            for user in joined.into_iter().filter_map(|name| users.get(name)) {
                let memberships = self.memberships.entry((conversation, *user)).or_default();
                if memberships.last().is_none_or(|membership| membership.left.is_some()) {
                    let visible_from = if sees_all { 1 } else { seq };
                    memberships.push(Membership { visible_from, joined: seq, left: None });
                }
            }
            for user in left.into_iter().filter_map(|name| users.get(name)) {
                if let Some(membership) =
                    self.memberships.get_mut(&(conversation, *user)).and_then(|all| all.last_mut())
                {
                    membership.left.get_or_insert(seq);
                }
            }
        }
    }

    /// The stored entries of a conversation.
    pub(super) fn entries(&self, conversation: Conversation) -> &'a [Stored] {
        self.conversations.get(conversation as usize).copied().flatten().map_or(&[], |stored| &stored.entries)
    }

    /// The stored entry with a `conversation_seq`.
    pub(super) fn at(&self, conversation: Conversation, seq: u64) -> Option<&'a Stored> {
        let entries = self.entries(conversation);
        // Its index, if the conversation has no gap.
        let guess = usize::try_from(seq).ok()?.checked_sub(1)?;
        let found = entries.get(guess).filter(|entry| entry.conversation_seq == seq);
        found.or_else(|| {
            entries.binary_search_by_key(&seq, |entry| entry.conversation_seq).ok().map(|at| &entries[at])
        })
    }

    /// The `conversation_seq` of the last stored entry.
    pub(super) fn head(&self, conversation: Conversation) -> u64 {
        self.entries(conversation).last().map_or(0, |entry| entry.conversation_seq)
    }

    /// The `conversation_seq` of a stored message.
    pub(super) fn seq_of(&self, conversation: Conversation, id: Id) -> Option<u64> {
        self.seqs.get(&(conversation, id)).copied()
    }

    /// The stored message of a send.
    pub(super) fn stored(&self, send: &Send) -> Option<&'a Stored> {
        self.by_client_id.get(&(send.conversation, send.device, send.client_msg_id)).copied()
    }

    /// What a message became with each of its changes; empty if nothing has changed it.
    pub(super) fn versions(&self, conversation: Conversation, seq: u64) -> &[Version] {
        let of = self.versions.get(conversation as usize).and_then(|versions| versions.get(&seq));
        of.map_or(&[], Vec::as_slice)
    }

    /// The device that sent a stored entry.
    pub(super) fn device_of(&self, entry: &Stored) -> Option<DeviceId> {
        self.devices.get(&(entry.sender.as_str(), entry.device.as_str())).copied()
    }

    /// The user with a name.
    pub(super) fn user_named(&self, name: &str) -> Option<User> {
        self.users.get(name).copied()
    }

    /// Whether a user was a member when the conversation was at a `conversation_seq`.
    pub(super) fn is_member(&self, conversation: Conversation, user: User, seq: u64) -> bool {
        let is_member = |membership: &Membership| {
            membership.joined <= seq && membership.left.is_none_or(|left| seq <= left)
        };
        self.memberships(conversation, user).iter().any(is_member)
    }

    /// All memberships of a user in a conversation, oldest first.
    pub(super) fn memberships(&self, conversation: Conversation, user: User) -> &[Membership] {
        self.memberships.get(&(conversation, user)).map_or(&[], Vec::as_slice)
    }

    /// The last membership in which the user may see a `conversation_seq`.
    pub(super) fn membership_at(
        &self,
        conversation: Conversation,
        user: User,
        seq: u64,
    ) -> Option<Membership> {
        self.memberships(conversation, user).iter().rev().find(|membership| membership.covers(seq)).copied()
    }

    /// The membership at the end of the run.
    pub(super) fn current_membership(&self, conversation: Conversation, user: User) -> Option<Membership> {
        self.memberships(conversation, user).last().filter(|membership| membership.left.is_none()).copied()
    }

    /// Whether a stored message was acknowledged.
    pub(super) fn is_acked(&self, conversation: Conversation, id: Id) -> bool {
        self.acked.contains(&(conversation, id))
    }

    /// The user of a send.
    pub(super) fn sender(&self, send: &Send) -> User {
        self.ledger.devices[send.device as usize].user
    }

    /// A conversation's id.
    pub(super) fn id(&self, conversation: Conversation) -> &'a str {
        self.ledger.conversations.get(conversation as usize).map_or("an unknown conversation", String::as_str)
    }

    /// A user's name.
    pub(super) fn user(&self, user: User) -> &'a str {
        self.ledger.users.get(user as usize).map_or("an unknown user", String::as_str)
    }

    /// A device's name.
    pub(super) fn device(&self, device: u32) -> String {
        self.ledger.device_name(device)
    }

    /// A readable description of a send.
    pub(super) fn send(&self, send: &Send) -> String {
        format!(
            "{} of {} in {}, begun at {} ms",
            send.client_msg_id,
            self.device(send.device),
            self.id(send.conversation),
            send.began
        )
    }
}
