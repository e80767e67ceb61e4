//! Digests of entries. The ledger keeps them in place of the contents.

use abi::v1::{Content, Entry, EntryState, GroupChange};
use prost::Message as _;
use std::hash::{DefaultHasher, Hash, Hasher as _};

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A digest of everything in an entry that its sender determines, with the content that it has now.
pub(crate) fn digest_of(entry: &Entry) -> u64 {
    digest(identity_of(entry), body_of(entry.content.as_ref()))
}

/// The digest of an entry with these parts.
pub(crate) fn digest(identity: u64, body: u64) -> u64 {
    hash((identity, body))
}

/// A digest of everything that the sender determines, apart from the content. Later entries do not change it.
pub(crate) fn identity_of(entry: &Entry) -> u64 {
    let Entry { sender, sender_device, client_msg_id, kind, refers_to, reactions, group_change, .. } = entry;
    hash((
        sender,
        sender_device,
        client_msg_id,
        kind,
        refers_to,
        reactions,
        group_change.as_ref().map(GroupChange::encode_to_vec),
    ))
}

/// A digest of a content.
pub(crate) fn body_of(content: Option<&Content>) -> u64 {
    hash(content.map(Content::encode_to_vec))
}

/// The digest of a state without the reader's own part; 0 if nothing has changed the entry.
pub(crate) fn state_of(state: Option<&EntryState>) -> u64 {
    state.map_or(0, |state| {
        let mut state = state.clone();
        state.reactions.iter_mut().for_each(|reaction| reaction.mine = false);
        own_state_of(Some(&state))
    })
}

/// The digest of a state as one reader sees it; 0 if nothing has changed the entry.
pub(crate) fn own_state_of(state: Option<&EntryState>) -> u64 {
    state.map_or(0, |state| hash(state.encode_to_vec()))
}
