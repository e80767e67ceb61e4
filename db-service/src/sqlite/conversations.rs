//! Conversations as the writer sees them: their rows, and a cache. Only the writer changes them, so a cached state is never stale.

use crate::{error::Result, item::Item, outcome::EntrySeqs, rules, statements::changes as sql};
use abi::v1::{HistoryVisibility, Role};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::collections::HashMap;

/// Most conversations in each of the two halves of the cache.
const HALF_CAPACITY: usize = 50_000;
/// Most members of a group that the cache knows to be members.
const MAX_SENDERS: usize = 64;

/// Parameters: key of the conversation, app, user, role, join order.
const INSERT_DIRECT_MEMBER: &str = "INSERT INTO members
    (conversation, app, user_id, role, visible_from, read_seq, read_countable, excluded, joined)
    VALUES ($1, $2, $3, $4, 1, 0, 0, 0, $5)";

/// A conversation as the current transaction sees it.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    /// Key of its row.
    pub(super) key: i64,
    /// `conversation_seq` of the last entry. 0 before the first one.
    pub(super) head: i64,
    /// `countable_seq` of the last entry.
    pub(super) countable: i64,
    /// `conversation_seq` of the last entry that does not change another entry.
    pub(super) shown: i64,
    /// When that entry was sent.
    pub(super) last_sent_at_ms: i64,
    /// Whether the row still has to be updated.
    pub(super) is_dirty: bool,
    /// Users who are members of the group and have sent something.
    senders: Vec<Box<str>>,
}

impl Conversation {
    /// The numbers of the next entry.
    pub(super) fn next(&self, counts: bool) -> EntrySeqs {
        EntrySeqs { seq: self.head + 1, countable: self.countable + i64::from(counts), target: 0 }
    }

    /// Whether the user is known to be a member of the group.
    pub(super) fn has_sender(&self, user: &str) -> bool {
        self.senders.iter().any(|sender| **sender == *user)
    }

    /// Remembers a member of the group.
    pub(super) fn remember_sender(&mut self, user: &str) {
        if self.senders.len() < MAX_SENDERS {
            self.senders.push(user.into());
        }
    }

    /// Forgets the members: a change of the group may have removed them.
    pub(super) fn forget_senders(&mut self) {
        self.senders.clear();
    }
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
            if self.recent.len() >= HALF_CAPACITY {
                self.older = std::mem::take(&mut self.recent);
            }
            self.recent.insert(scope, conversation);
        }
        Ok(self.recent.get_mut(scope))
    }

    /// Evicts everything. Needed after a rollback.
    pub(super) fn clear(&mut self) {
        self.recent.clear();
        self.older.clear();
    }
}

/// The conversation of an item; `None` if it does not exist.
pub(super) fn load(conn: &Connection, item: &Item) -> Result<Option<Conversation>> {
    let mut select = conn.prepare_cached(sql::CONVERSATION)?;
    let conversation = select.query_row([item.app(), item.conversation()], |row| {
        Ok(Conversation {
            key: row.get(0)?,
            head: row.get(1)?,
            countable: row.get(2)?,
            shown: row.get(3)?,
            last_sent_at_ms: row.get(4)?,
            is_dirty: false,
            senders: Vec::new(),
        })
    });
    Ok(conversation.optional()?)
}

/// The conversation of an item. The first entry of a direct conversation creates it.
pub(super) fn load_or_create_direct(conn: &Connection, item: &Item) -> Result<Option<Conversation>> {
    if let Some(conversation) = load(conn, item)? {
        return Ok(Some(conversation));
    }
    if !item.is_direct() {
        return Ok(None);
    }
    let conversation = create(conn, item, "", true)?;
    let mut add = conn.prepare_cached(INSERT_DIRECT_MEMBER)?;
    let direct = abi::ids::Conversation::parse(item.conversation())?;
    for (index, user) in direct.direct_members().enumerate() {
        let joined = rules::join_order(1, index);
        add.execute(params![conversation.key, item.app(), user, i32::from(Role::Member), joined])?;
    }
    Ok(Some(conversation))
}

/// Creates a conversation without entries.
pub(super) fn create(conn: &Connection, item: &Item, name: &str, history_all: bool) -> Result<Conversation> {
    let history = if history_all { HistoryVisibility::All } else { HistoryVisibility::FromJoin };
    conn.prepare_cached(
        "INSERT INTO conversations (app, id, head, countable, shown, last_sent_at_ms, members_version, name, history)
         VALUES ($1, $2, 0, 0, 0, 0, 0, $3, $4)",
    )?
    .execute(params![item.app(), item.conversation(), name, i32::from(history)])?;
    Ok(Conversation {
        key: conn.last_insert_rowid(),
        head: 0,
        countable: 0,
        shown: 0,
        last_sent_at_ms: 0,
        is_dirty: false,
        senders: Vec::new(),
    })
}

/// The numbers of a stored entry; `None` if no entry has the message id.
pub(super) fn entry_seqs(conn: &Connection, key: i64, id: &[u8; 16]) -> Result<Option<EntrySeqs>> {
    let mut select = conn.prepare_cached(sql::ENTRY_SEQS)?;
    let found = select.query_row(params![key, id], |row| {
        Ok(EntrySeqs { seq: row.get(0)?, countable: row.get(1)?, target: row.get(2)? })
    });
    Ok(found.optional()?)
}

/// Stores an entry that is not a duplicate.
pub(super) fn insert(conn: &Connection, key: i64, item: &Item, seqs: EntrySeqs) -> Result<()> {
    conn.prepare_cached(sql::INSERT_ENTRY)?.execute(entry_params!(key, item, seqs))?;
    Ok(())
}

/// The role of a current member, and the first entry that the user can see; `None` if the user is not a member.
pub(super) fn role(conn: &Connection, key: i64, user: &str) -> Result<Option<(Role, i64)>> {
    let mut select = conn.prepare_cached(sql::ROLE)?;
    let found = select.query_row(params![key, user], |row| {
        Ok((Role::try_from(row.get::<_, i32>(0)?).unwrap_or(Role::Member), row.get(1)?))
    });
    Ok(found.optional()?)
}
