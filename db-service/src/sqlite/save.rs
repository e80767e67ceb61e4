//! Saving: numbering, deduplication, group changes.

use super::{
    conversations::{Conversation, ConversationCache},
    read,
    writer::Tx,
};
use crate::{
    error::{Error, Result},
    item::{Change, Item},
    rules::{self, Effect, Limits, Proposal},
    statements as sql,
    store::{Decision, EntrySeqs, accepted, group_not_found, not_a_group, rejected, request_id_conflict},
};
use abi::v1::{HistoryVisibility, Role, SaveOutcome, SaveResult};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use std::collections::HashSet;

/// Parameters: those of [`sql::INSERT_ENTRY`].
const INSERT_UNLESS_DUPLICATE: &str =
    "INSERT INTO entries (conversation, seq, countable, message_id, payload) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (conversation, message_id) DO NOTHING";

/// Parameters: app, user, conversation, its key, role, first visible entry, read position (two seqs), join order.
const INSERT_MEMBER: &str = "INSERT INTO members
    (app, user_id, id, conversation, role, visible_from, read_seq, read_countable, joined)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Stores a batch within the writer's transaction.
pub(super) fn save(tx: &mut Tx<'_>, items: &[Item], limits: Limits) -> Result<Vec<SaveResult>> {
    let conn = tx.conn;
    let mut insert = conn.prepare_cached(INSERT_UNLESS_DUPLICATE)?;
    // Each conversation's row is updated once per batch, at the end. The cache still holds it then: a batch is smaller than
    // half of the cache.
    let mut dirty = Vec::new();
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        results.push(match &item.change {
            None => message(conn, tx.conversations, &mut insert, &mut dirty, item)?,
            Some(change) => group_change(conn, tx.conversations, &mut dirty, item, change, limits)?,
        });
    }
    let mut update = conn.prepare_cached(
        "UPDATE conversations SET head = $1, countable = $2, last_sent_at_ms = $3 WHERE key = $4",
    )?;
    for scope in dirty {
        let conversation = tx
            .conversations
            .get(scope, || Ok(None))?
            .ok_or(Error::Corrupt("the cache lost a conversation of the batch"))?;
        let Conversation { key, last, last_sent_at_ms, .. } = *conversation;
        update.execute(params![last.seq, last.countable, last_sent_at_ms, key])?;
        conversation.is_dirty = false;
    }
    Ok(results)
}

fn message<'a>(
    conn: &Connection,
    conversations: &mut ConversationCache,
    insert: &mut CachedStatement<'_>,
    dirty: &mut Vec<&'a str>,
    item: &'a Item,
) -> Result<SaveResult> {
    let Some(conversation) = conversations.get(&item.scope, || load_or_create_direct(conn, item))? else {
        return Ok(rejected(group_not_found()));
    };
    let Conversation { key, last, .. } = *conversation;
    let next = EntrySeqs { seq: last.seq + 1, countable: last.countable + 1 };
    if insert.execute(params![key, next.seq, next.countable, item.id, item.payload])? == 0 {
        let stored = entry_seqs(conn, key, &item.id)?.ok_or(Error::Corrupt("a duplicate has no entry"))?;
        return Ok(accepted(SaveOutcome::Duplicate, stored, None));
    }
    advance(conversation, next, item, dirty);
    Ok(accepted(SaveOutcome::Stored, next, None))
}

fn group_change<'a>(
    conn: &Connection,
    conversations: &mut ConversationCache,
    dirty: &mut Vec<&'a str>,
    item: &'a Item,
    change: &Change,
    limits: Limits,
) -> Result<SaveResult> {
    let existing = conversations.get(&item.scope, || load(conn, item))?.copied();
    let effect = match decide(conn, item, change, existing, limits)? {
        Decision::Duplicate(seqs) => {
            let group = read::group(conn, item.app(), item.conversation())?;
            return Ok(accepted(SaveOutcome::Duplicate, seqs, group));
        }
        Decision::Refused(error) => return Ok(rejected(error)),
        Decision::Allowed(effect) => effect,
    };
    let mut conversation = match (existing, &effect.created) {
        (Some(conversation), _) => conversation,
        (None, Some((name, history_all))) => create(conn, item, name, *history_all)?,
        (None, None) => return Err(Error::Corrupt("a change of a missing group was allowed")),
    };
    let Conversation { key, last, .. } = conversation;
    let next = EntrySeqs { seq: last.seq + 1, ..last };
    let mut insert = conn.prepare_cached(sql::INSERT_ENTRY)?;
    insert.execute(params![key, next.seq, next.countable, item.id, item.payload])?;
    apply(conn, item, key, next, effect)?;
    advance(&mut conversation, next, item, dirty);
    conversations.insert(item.scope.clone(), conversation);
    Ok(accepted(SaveOutcome::Stored, next, read::group(conn, item.app(), item.conversation())?))
}

/// Whether [`save`] would accept the group change now. Returns its result if it is stored already.
pub(super) fn check(conn: &Connection, item: &Item, limits: Limits) -> Result<Option<SaveResult>> {
    let change = item.change.as_ref().ok_or(Error::Corrupt("a message was checked as a group change"))?;
    let existing = load(conn, item)?;
    let seqs = match decide(conn, item, change, existing, limits)? {
        Decision::Refused(error) => return Err(error.into()),
        Decision::Allowed(_) => return Ok(None),
        Decision::Duplicate(seqs) => seqs,
    };
    let mut select = conn.prepare_cached(sql::ENTRY_PAYLOAD)?;
    let key = existing.map(|conversation| conversation.key);
    let payload: Vec<u8> = select.query_row(params![key, seqs.seq], |row| row.get(0))?;
    if !change.is_in(&payload)? {
        return Err(request_id_conflict().into());
    }
    let group = read::group(conn, item.app(), item.conversation())?;
    Ok(Some(accepted(SaveOutcome::Duplicate, seqs, group)))
}

fn decide(
    conn: &Connection,
    item: &Item,
    change: &Change,
    existing: Option<Conversation>,
    limits: Limits,
) -> Result<Decision> {
    if item.is_direct() {
        return Ok(Decision::Refused(not_a_group()));
    }
    let mut group = None;
    if let Some(Conversation { key, .. }) = existing {
        if let Some(seqs) = entry_seqs(conn, key, &item.id)? {
            return Ok(Decision::Duplicate(seqs));
        }
        group = read::group(conn, item.app(), item.conversation())?;
    }
    let proposed = change.change.change.as_ref();
    let proposal = Proposal {
        sender: &change.sender,
        change: proposed,
        seq: existing.map_or(1, |conversation| conversation.last.seq + 1),
        accounts: accounts(conn, item.app(), limits.users_to_look_up(proposed))?,
    };
    let decision = rules::decide(group.as_ref(), &proposal, limits);
    Ok(decision.map_or_else(Decision::Refused, Decision::Allowed))
}

/// The subset of `users` that has an account.
fn accounts(conn: &Connection, app: &str, users: HashSet<&str>) -> Result<HashSet<String>> {
    let mut select = conn.prepare_cached("SELECT 1 FROM users WHERE app = $1 AND user_id = $2")?;
    let mut accounts = HashSet::new();
    for user in users {
        if select.exists([app, user])? {
            accounts.insert(user.to_owned());
        }
    }
    Ok(accounts)
}

fn apply(conn: &Connection, item: &Item, key: i64, seqs: EntrySeqs, effect: Effect) -> Result<()> {
    let (app, id) = (item.app(), item.conversation());
    let mut remove =
        conn.prepare_cached("DELETE FROM members WHERE app = $1 AND user_id = $2 AND id = $3")?;
    for user in &effect.removed {
        remove.execute([app, user, id])?;
    }
    if let Some(user) = &effect.promoted {
        conn.prepare_cached(sql::UPDATE_ROLE)?.execute(params![i32::from(Role::Owner), app, user, id])?;
    }
    let mut add = conn.prepare_cached(INSERT_MEMBER)?;
    for (index, member) in effect.added.into_iter().enumerate() {
        // Entries from before a member joined do not count as unread.
        add.execute(params![
            app,
            member.user,
            id,
            key,
            i32::from(member.role),
            member.visible_from,
            seqs.seq - 1,
            seqs.countable,
            rules::join_order(seqs.seq, index),
        ])?;
    }
    conn.prepare_cached("UPDATE conversations SET members_version = members_version + 1 WHERE key = $1")?
        .execute([key])?;
    Ok(())
}

fn load(conn: &Connection, item: &Item) -> Result<Option<Conversation>> {
    let mut select = conn.prepare_cached(sql::CONVERSATION)?;
    let conversation = select.query_row([item.app(), item.conversation()], |row| {
        Ok(Conversation {
            key: row.get(0)?,
            last: EntrySeqs { seq: row.get(1)?, countable: row.get(2)? },
            last_sent_at_ms: row.get(3)?,
            is_dirty: false,
        })
    });
    Ok(conversation.optional()?)
}

/// Creates a direct conversation for its first message.
fn load_or_create_direct(conn: &Connection, item: &Item) -> Result<Option<Conversation>> {
    if let Some(conversation) = load(conn, item)? {
        return Ok(Some(conversation));
    }
    if !item.is_direct() {
        return Ok(None);
    }
    let conversation = create(conn, item, "", true)?;
    let mut add = conn.prepare_cached(INSERT_MEMBER)?;
    let direct = abi::ids::Conversation::parse(item.conversation())?;
    for (index, user) in direct.direct_members().enumerate() {
        let (app, id, role) = (item.app(), item.conversation(), i32::from(Role::Member));
        add.execute(params![app, user, id, conversation.key, role, 1, 0, 0, rules::join_order(1, index)])?;
    }
    Ok(Some(conversation))
}

fn create(conn: &Connection, item: &Item, name: &str, history_all: bool) -> Result<Conversation> {
    let history = if history_all { HistoryVisibility::All } else { HistoryVisibility::FromJoin };
    conn.prepare_cached(
        "INSERT INTO conversations (app, id, head, countable, members_version, name, history, last_sent_at_ms)
         VALUES ($1, $2, 0, 0, 0, $3, $4, 0)",
    )?
    .execute(params![item.app(), item.conversation(), name, i32::from(history)])?;
    let last = EntrySeqs { seq: 0, countable: 0 };
    Ok(Conversation { key: conn.last_insert_rowid(), last, last_sent_at_ms: 0, is_dirty: false })
}

fn entry_seqs(conn: &Connection, key: i64, id: &[u8; 16]) -> Result<Option<EntrySeqs>> {
    let mut select = conn.prepare_cached(sql::ENTRY_SEQS)?;
    let found =
        select.query_row(params![key, id], |row| Ok(EntrySeqs { seq: row.get(0)?, countable: row.get(1)? }));
    Ok(found.optional()?)
}

fn advance<'a>(conversation: &mut Conversation, next: EntrySeqs, item: &'a Item, dirty: &mut Vec<&'a str>) {
    (conversation.last, conversation.last_sent_at_ms) = (next, item.sent_at_ms);
    if !conversation.is_dirty {
        conversation.is_dirty = true;
        dirty.push(&item.scope);
    }
}
