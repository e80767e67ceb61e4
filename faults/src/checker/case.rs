//! Ledger and store side by side, with what both know of the same thing made easy to find.

use crate::{
    ledger::{Conversation, Id, Ledger, Outcome, Send, User},
    store::{self, Content, StoreView, Stored},
};
use std::collections::{HashMap, HashSet};

/// A stretch of a conversation that a user may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    /// The first number that they see.
    pub(super) from: u64,
    /// The number with which they came.
    pub(super) joined: u64,
    /// The last number, once the user is out.
    pub(super) to: Option<u64>,
}

impl Stay {
    fn contains(self, seq: u64) -> bool {
        self.from <= seq && self.to.is_none_or(|to| seq <= to)
    }
}

/// What is compared.
pub(super) struct Case<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) store: &'a StoreView,
    /// By the ledger's numbers; `None`: nothing is stored.
    conversations: Vec<Option<&'a store::Conversation>>,
    /// Where each message is stored.
    places: HashMap<(Conversation, Id), u64>,
    /// What each message of a sender is stored as, by the sender's own id of it.
    said: HashMap<(Conversation, &'a str, Id), &'a Stored>,
    stays: HashMap<(Conversation, User), Vec<Stay>>,
    acked: HashSet<(Conversation, Id)>,
}

impl<'a> Case<'a> {
    pub(super) fn new(ledger: &'a Ledger, store: &'a StoreView) -> Self {
        let conversations: Vec<_> =
            ledger.conversations.iter().map(|id| store.conversations.get(id)).collect();
        let mut case = Self {
            ledger,
            store,
            conversations,
            places: HashMap::new(),
            said: HashMap::new(),
            stays: HashMap::new(),
            acked: HashSet::new(),
        };
        let users: HashMap<&str, User> =
            ledger.users.iter().enumerate().map(|(number, name)| (name.as_str(), number as User)).collect();
        for (number, id) in ledger.conversations.iter().enumerate() {
            let number = number as Conversation;
            let entries = case.entries(number);
            case.places
                .extend(entries.iter().map(|entry| ((number, entry.message_id), entry.conversation_seq)));
            case.said.extend(entries.iter().filter_map(|entry| {
                Some(((number, entry.sender.as_str(), Id::parse(&entry.client_msg_id)?), entry))
            }));
            let direct = abi::ids::Conversation::parse(id).into_iter();
            for user in
                direct.flat_map(abi::ids::Conversation::direct_members).filter_map(|name| users.get(name))
            {
                case.stays.insert((number, *user), vec![Stay { from: 1, joined: 1, to: None }]);
            }
            case.follow(number, entries, &users);
        }
        let acked = ledger.sends.iter().filter_map(|send| match send.outcome {
            Outcome::Acked { message_id, .. } => Some((send.conversation, message_id)),
            _ => None,
        });
        case.acked = acked.collect();
        case
    }

    /// Follows the changes of a group.
    fn follow(&mut self, conversation: Conversation, entries: &[Stored], users: &HashMap<&str, User>) {
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
                Content::Message { .. } | Content::Nothing => continue,
            };
            for user in joined.into_iter().filter_map(|name| users.get(name)) {
                let stays = self.stays.entry((conversation, *user)).or_default();
                if stays.last().is_none_or(|stay| stay.to.is_some()) {
                    stays.push(Stay { from: if sees_all { 1 } else { seq }, joined: seq, to: None });
                }
            }
            for user in left.into_iter().filter_map(|name| users.get(name)) {
                if let Some(stay) =
                    self.stays.get_mut(&(conversation, *user)).and_then(|stays| stays.last_mut())
                {
                    stay.to.get_or_insert(seq);
                }
            }
        }
    }

    /// The entries of a conversation in the store.
    pub(super) fn entries(&self, conversation: Conversation) -> &'a [Stored] {
        self.conversations.get(conversation as usize).copied().flatten().map_or(&[], |stored| &stored.entries)
    }

    /// The entry with a number.
    pub(super) fn at(&self, conversation: Conversation, seq: u64) -> Option<&'a Stored> {
        let entries = self.entries(conversation);
        // Where it is if there is no gap.
        let guess = usize::try_from(seq).ok()?.checked_sub(1)?;
        let found = entries.get(guess).filter(|entry| entry.conversation_seq == seq);
        found.or_else(|| {
            entries.binary_search_by_key(&seq, |entry| entry.conversation_seq).ok().map(|at| &entries[at])
        })
    }

    /// The last number of a conversation.
    pub(super) fn head(&self, conversation: Conversation) -> u64 {
        self.entries(conversation).last().map_or(0, |entry| entry.conversation_seq)
    }

    /// The number of a message in the store.
    pub(super) fn place(&self, conversation: Conversation, id: Id) -> Option<u64> {
        self.places.get(&(conversation, id)).copied()
    }

    /// What a send is stored as.
    pub(super) fn stored(&self, send: &Send) -> Option<&'a Stored> {
        self.said.get(&(send.conversation, self.user(self.sender(send)), send.client_msg_id)).copied()
    }

    /// Whether a user was in a conversation when it had come to a number.
    pub(super) fn is_member(&self, conversation: Conversation, user: User, seq: u64) -> bool {
        let is_in = |stay: &Stay| stay.joined <= seq && stay.to.is_none_or(|to| seq <= to);
        self.stays(conversation, user).iter().any(is_in)
    }

    /// What a user could see of a conversation, in order.
    pub(super) fn stays(&self, conversation: Conversation, user: User) -> &[Stay] {
        self.stays.get(&(conversation, user)).map_or(&[], Vec::as_slice)
    }

    /// The last of them that covers a number.
    pub(super) fn stay(&self, conversation: Conversation, user: User, seq: u64) -> Option<Stay> {
        self.stays(conversation, user).iter().rev().find(|stay| stay.contains(seq)).copied()
    }

    /// What a user can see of a conversation at the end; `None` for who is not in it.
    pub(super) fn open_stay(&self, conversation: Conversation, user: User) -> Option<Stay> {
        self.stays(conversation, user).last().filter(|stay| stay.to.is_none()).copied()
    }

    /// Whether a stored message was acknowledged to somebody.
    pub(super) fn is_acked(&self, conversation: Conversation, id: Id) -> bool {
        self.acked.contains(&(conversation, id))
    }

    /// The user of a send.
    pub(super) fn sender(&self, send: &Send) -> User {
        self.ledger.devices[send.device as usize].user
    }

    /// A conversation's id.
    pub(super) fn id(&self, conversation: Conversation) -> &'a str {
        self.ledger
            .conversations
            .get(conversation as usize)
            .map_or("a conversation without a name", String::as_str)
    }

    /// A user's name.
    pub(super) fn user(&self, user: User) -> &'a str {
        self.ledger.users.get(user as usize).map_or("nobody", String::as_str)
    }

    /// A device's name.
    pub(super) fn device(&self, device: u32) -> String {
        self.ledger.device_name(device)
    }

    /// A send, for people.
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
