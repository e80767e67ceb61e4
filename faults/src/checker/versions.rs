//! The states through which a message goes: a plain replay of the stored edits, recalls and reactions in their order.

use crate::{
    ledger::{self, Id},
    store::{Content, Stored},
};
use abi::v1::{EntryState, ReactionCount};
use std::collections::{BTreeMap, HashMap};

/// A message after one of its changes.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// Its state, without the reader's own part. `changed_seq` is the `conversation_seq` of the change.
    pub(super) state: EntryState,
    /// The part of the digest that covers its content.
    pub(super) body: u64,
    /// The present reactions of each user.
    reactions: BTreeMap<String, Vec<String>>,
}

impl Version {
    fn original(entry: &Stored) -> Self {
        Self { state: EntryState::default(), body: entry.body, reactions: BTreeMap::new() }
    }

    /// The message after one more change.
    fn changed(&self, change: &Stored) -> Self {
        let mut next = self.clone();
        next.state.changed_seq = change.conversation_seq;
        match &change.content {
            Content::Edit => {
                next.state.edits += 1;
                next.state.edited_at_ms = change.sent_at_ms;
                next.body = change.body;
            }
            Content::Recall => {
                next.state.recalled_by.clone_from(&change.sender);
                next.body = ledger::body_of(None);
            }
            Content::Reaction(reactions) => next.react(&change.sender, reactions),
            _ => {}
        }
        next
    }

    fn react(&mut self, user: &str, reactions: &[String]) {
        self.reactions.insert(user.to_owned(), reactions.to_vec());
        let of = |reaction: &str, all: &BTreeMap<String, Vec<String>>| {
            all.values().filter(|own| own.iter().any(|one| one == reaction)).count()
        };
        let used = &self.reactions;
        self.state.reactions.retain(|count| of(&count.reaction, used) > 0);
        for reaction in reactions {
            if !self.state.reactions.iter().any(|count| count.reaction == *reaction) {
                self.state.reactions.push(ReactionCount { reaction: reaction.clone(), ..Default::default() });
            }
        }
        for count in &mut self.state.reactions {
            count.count = u32::try_from(of(&count.reaction, used)).unwrap_or(u32::MAX);
        }
    }

    /// The digest of the state as a user sees it.
    pub(super) fn own_state(&self, user: &str) -> u64 {
        let mut state = self.state.clone();
        for count in &mut state.reactions {
            count.mine = self.reactions.get(user).is_some_and(|own| own.contains(&count.reaction));
        }
        ledger::own_state_of(Some(&state))
    }

    pub(super) fn is_recalled(&self) -> bool {
        !self.state.recalled_by.is_empty()
    }
}

/// The versions of the changed messages of a conversation, by `conversation_seq`.
pub(super) type Versions = HashMap<u64, Vec<Version>>;

/// Replays the changes of a conversation.
pub(super) fn replay(entries: &[Stored]) -> Versions {
    let by_id: HashMap<Id, &Stored> = entries.iter().map(|entry| (entry.message_id, entry)).collect();
    let mut all = Versions::new();
    for change in entries.iter().filter(|entry| is_change(entry)) {
        let Some(target) = change.refers_to.and_then(|id| by_id.get(&id)) else { continue };
        let versions = all.entry(target.conversation_seq).or_default();
        let next = match versions.last() {
            Some(version) => version.changed(change),
            None => Version::original(target).changed(change),
        };
        versions.push(next);
    }
    all
}

/// Whether an entry changes a message.
pub(super) fn is_change(entry: &Stored) -> bool {
    matches!(entry.content, Content::Edit | Content::Recall | Content::Reaction(_))
}
