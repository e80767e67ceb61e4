//! The writer's cache of conversations. Only the writer changes them, so a cached state is never stale.

use crate::{error::Result, store::EntrySeqs};
use std::collections::HashMap;

/// Most conversations in each of the two halves of the cache.
const HALF_CAPACITY: usize = 50_000;

/// A conversation as the current transaction sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conversation {
    /// Key of its row.
    pub(super) key: i64,
    /// The last entry. Both are 0 before the first one.
    pub(super) last: EntrySeqs,
    /// When the last entry was sent.
    pub(super) last_sent_at_ms: i64,
    /// Whether the row still has to be updated.
    pub(super) is_dirty: bool,
}

/// A bounded cache with the key `APP/CONVERSATION`. Insertions go to `recent`. When that half is full it replaces `older`,
/// whose conversations are evicted. A hit in `older` moves the conversation to `recent`.
#[derive(Default)]
pub(super) struct ConversationCache {
    recent: HashMap<String, Conversation>,
    older: HashMap<String, Conversation>,
}

impl ConversationCache {
    /// A conversation from the cache, or else from `load`; `None` if it does not exist.
    pub(super) fn get(
        &mut self,
        scope: &str,
        load: impl FnOnce() -> Result<Option<Conversation>>,
    ) -> Result<Option<&mut Conversation>> {
        // The borrow checker rejects an early return of a reference from `get_mut`, so look up twice.
        if !self.recent.contains_key(scope) {
            let (scope, conversation) = match self.older.remove_entry(scope) {
                Some(entry) => entry,
                None => match load()? {
                    Some(conversation) => (scope.to_owned(), conversation),
                    None => return Ok(None),
                },
            };
            self.insert(scope, conversation);
        }
        Ok(self.recent.get_mut(scope))
    }

    /// Adds or replaces a conversation.
    pub(super) fn insert(&mut self, scope: String, conversation: Conversation) {
        if self.recent.len() >= HALF_CAPACITY {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(scope, conversation);
    }

    /// Evicts everything. Needed after a rollback.
    pub(super) fn clear(&mut self) {
        self.recent.clear();
        self.older.clear();
    }
}
