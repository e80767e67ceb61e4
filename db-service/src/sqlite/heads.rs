//! Where conversations stand, in memory: the writer is the only one, so it need not read what it wrote.

use crate::error::Result;
use std::collections::HashMap;

/// Conversations in one generation; two of them are kept.
const GENERATION: usize = 50_000;

/// The last numbers of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Key of its row.
    pub(super) key: i64,
    /// `conversation_seq` of the last entry; 0: a group that does not exist yet.
    pub(super) seq: i64,
    /// `countable_seq` of the last entry.
    pub(super) countable: i64,
    /// When the last entry was sent.
    pub(super) last_sent_at_ms: i64,
    /// Not yet in its row.
    pub(super) is_dirty: bool,
}

/// A bounded map by `APP/CONVERSATION`. When the young generation is full it becomes the old one, and the old one
/// is forgotten; what is used moves to the young one.
#[derive(Default)]
pub(super) struct Heads {
    young: HashMap<String, Head>,
    old: HashMap<String, Head>,
}

impl Heads {
    /// The head of a conversation, from memory or through `load`; `None` if there is no such conversation.
    pub(super) fn get(
        &mut self,
        scope: &str,
        load: impl FnOnce() -> Result<Option<Head>>,
    ) -> Result<Option<&mut Head>> {
        // Looked up twice: a reference out of the first look-up could not be returned from one branch only.
        if !self.young.contains_key(scope) {
            let (scope, head) = match self.old.remove_entry(scope) {
                Some(entry) => entry,
                None => match load()? {
                    Some(head) => (scope.to_owned(), head),
                    None => return Ok(None),
                },
            };
            self.insert(scope, head);
        }
        Ok(self.young.get_mut(scope))
    }

    /// Adds a conversation, or replaces what is known of it.
    pub(super) fn insert(&mut self, scope: String, head: Head) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(scope, head);
    }

    /// Forgets everything: a transaction was undone.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
