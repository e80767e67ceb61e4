//! Saving: numbering, deduplication, and the order of the entries of a batch.

use super::{
    changes,
    conversations::{
        Conversation, ConversationCache, create, entry_seqs, insert, load, load_or_create_direct, role,
    },
    groups, positions,
    writer::Tx,
};
use crate::{
    error::{Error, Result},
    item::{Change, EntryChange, Item},
    outcome::{
        Decision, EntryDecision, EntrySeqs, accepted, accepted_with, group_not_found, mark_redelivered,
        rejected, rejected_before,
    },
    position::Batch,
    rules::{Limits, entries::no_such_entry, outsider},
};
use abi::v1::{GroupChange, SaveOutcome, SaveResult};
use rusqlite::{CachedStatement, Connection, params};
use std::collections::HashMap;

/// Parameters: those of [`INSERT_ENTRY`](crate::statements::changes::INSERT_ENTRY).
const INSERT_UNLESS_DUPLICATE: &str = "INSERT INTO entries
    (conversation, seq, countable, sent_at_ms, target_seq, counts, message_id, sender, kind, payload)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (conversation, message_id) DO NOTHING";

/// What a batch still has to write at its end, once per row.
#[derive(Default)]
struct Pending<'a> {
    /// Conversations whose row is out of date. The cache still holds them at the end: a batch is smaller than half of the cache.
    dirty: Vec<&'a str>,
    /// Countable entries by key of the conversation and sender. They don't count as unread for their sender.
    own: HashMap<(i64, &'a str), i64>,
}

/// Saves a part of the log within the writer's transaction.
pub(super) fn save(tx: &mut Tx<'_>, batch: &Batch, limits: Limits) -> Result<Vec<SaveResult>> {
    let conn = tx.conn;
    let decided = batch.decided(positions::decided(conn, &batch.partition)?)?;
    positions::raise(conn, batch)?;
    let mut insert = conn.prepare_cached(INSERT_UNLESS_DUPLICATE)?;
    let mut pending = Pending::default();
    let mut results = Vec::with_capacity(batch.items.len());
    let known = batch.known(&decided);
    for (index, item) in batch.items.iter().enumerate() {
        let is_decided = known.contains(&index);
        let conversations = &mut *tx.conversations;
        results.push(match &item.change {
            None => save_plain(conn, conversations, &mut insert, &mut pending, item, is_decided)?,
            Some(Change::Entry(change)) => {
                change_entry(conn, conversations, &mut pending, item, change, is_decided)?
            }
            Some(Change::Group(change)) => {
                change_group(conn, conversations, &mut pending, item, change, is_decided, limits)?
            }
        });
    }
    mark_redelivered(&mut results[known]);
    pending.write(conn, tx.conversations)?;
    Ok(results)
}

impl<'a> Pending<'a> {
    fn write(self, conn: &Connection, conversations: &mut ConversationCache) -> Result<()> {
        let mut update = conn.prepare_cached(
            "UPDATE conversations SET head = $1, countable = $2, shown = $3, last_sent_at_ms = $4 WHERE key = $5",
        )?;
        for scope in self.dirty {
            let conversation = conversations
                .get(scope, || Ok(None))?
                .ok_or(Error::Corrupt("the cache lost a conversation of the batch"))?;
            let Conversation { key, head, countable, shown, last_sent_at_ms, .. } = *conversation;
            update.execute(params![head, countable, shown, last_sent_at_ms, key])?;
            conversation.is_dirty = false;
        }
        let mut exclude = conn.prepare_cached(
            "UPDATE members SET excluded = excluded + $1 WHERE conversation = $2 AND user_id = $3",
        )?;
        for ((key, sender), entries) in self.own {
            exclude.execute(params![entries, key, sender])?;
        }
        Ok(())
    }

    /// Moves the head of a conversation to a new entry.
    fn advance(&mut self, conversation: &mut Conversation, seqs: EntrySeqs, item: &'a Item) {
        (conversation.head, conversation.countable) = (seqs.seq, seqs.countable);
        if !matches!(item.change, Some(Change::Entry(_))) {
            (conversation.shown, conversation.last_sent_at_ms) = (seqs.seq, item.sent_at_ms);
        }
        if !conversation.is_dirty {
            conversation.is_dirty = true;
            self.dirty.push(&item.scope);
        }
    }
}

/// Stores a message, or an entry of another kind that changes nothing. `is_decided`: if it is not stored, it was rejected.
fn save_plain<'a>(
    conn: &Connection,
    conversations: &mut ConversationCache,
    insert: &mut CachedStatement<'_>,
    pending: &mut Pending<'a>,
    item: &'a Item,
    is_decided: bool,
) -> Result<SaveResult> {
    if item.is_stranger {
        return Ok(rejected(outsider()));
    }
    let find = || if is_decided { load(conn, item) } else { load_or_create_direct(conn, item) };
    let Some(conversation) = conversations.get(&item.scope, find)? else {
        return Ok(rejected(group_not_found()));
    };
    let key = conversation.key;
    if is_decided {
        let stored = entry_seqs(conn, key, &item.id)?.map(|seqs| accepted(SaveOutcome::Duplicate, seqs));
        return Ok(stored.unwrap_or_else(|| rejected(rejected_before())));
    }
    if !item.is_direct() && !conversation.has_sender(&item.sender) {
        if role(conn, key, &item.sender)?.is_none() {
            let stored = entry_seqs(conn, key, &item.id)?;
            return Ok(
                stored.map_or_else(|| rejected(outsider()), |seqs| accepted(SaveOutcome::Duplicate, seqs))
            );
        }
        conversation.remember_sender(&item.sender);
    }
    let mut next = conversation.next(item.counts);
    if let Some(target) = &item.refers_to {
        next.target = entry_seqs(conn, key, target)?.map_or(0, |seqs| seqs.seq);
    }
    if insert.execute(entry_params!(key, item, next))? == 0 {
        let stored = entry_seqs(conn, key, &item.id)?.ok_or(Error::Corrupt("a duplicate has no entry"))?;
        return Ok(accepted(SaveOutcome::Duplicate, stored));
    }
    if item.counts {
        *pending.own.entry((key, &item.sender)).or_default() += 1;
    }
    pending.advance(conversation, next, item);
    Ok(accepted(SaveOutcome::Stored, next))
}

/// Stores a change of an entry. `is_decided`: if it is not stored, it was rejected.
fn change_entry<'a>(
    conn: &Connection,
    conversations: &mut ConversationCache,
    pending: &mut Pending<'a>,
    item: &'a Item,
    change: &EntryChange,
    is_decided: bool,
) -> Result<SaveResult> {
    let Some(conversation) = conversations.get(&item.scope, || load(conn, item))? else {
        return Ok(rejected(no_such_entry(item)));
    };
    let key = conversation.key;
    let mut next = conversation.next(false);
    let (target, effect) = match changes::decide(conn, item, change, key, next.seq, None)? {
        EntryDecision::Duplicate(seqs, state) => {
            return Ok(accepted_with(SaveOutcome::Duplicate, seqs, state));
        }
        EntryDecision::Refused(error) => return Ok(rejected(error)),
        EntryDecision::Allowed(..) if is_decided => return Ok(rejected(rejected_before())),
        EntryDecision::Allowed(target, effect) => (target, effect),
    };
    next.target = target.seq;
    insert(conn, key, item, next)?;
    let state = changes::apply(conn, item, key, &target, effect)?;
    pending.advance(conversation, next, item);
    Ok(accepted_with(SaveOutcome::Stored, next, Some(state)))
}

/// Stores a change of a group. `is_decided`: if it is not stored, it was rejected.
fn change_group<'a>(
    conn: &Connection,
    conversations: &mut ConversationCache,
    pending: &mut Pending<'a>,
    item: &'a Item,
    change: &GroupChange,
    is_decided: bool,
    limits: Limits,
) -> Result<SaveResult> {
    let existing = conversations.get(&item.scope, || load(conn, item))?;
    let key = existing.map(|conversation| conversation.key);
    let (effect, history_all) = match groups::decide(conn, item, change, key, None, limits)? {
        Decision::Duplicate(seqs) => {
            return groups::result(conn, item, key, seqs, SaveOutcome::Duplicate);
        }
        Decision::Refused(error) => return Ok(rejected(error)),
        Decision::Allowed(..) if is_decided => return Ok(rejected(rejected_before())),
        Decision::Allowed(effect, history_all) => (effect, history_all),
    };
    let created = || {
        let Some((name, history_all)) = &effect.created else { return Ok(None) };
        Ok(Some(create(conn, item, name, *history_all)?))
    };
    let conversation = conversations
        .get(&item.scope, created)?
        .ok_or(Error::Corrupt("a change of a missing group was allowed"))?;
    let next = conversation.next(false);
    insert(conn, conversation.key, item, next)?;
    groups::apply(conn, item, conversation.key, next, effect, history_all)?;
    let key = conversation.key;
    conversation.forget_senders();
    pending.advance(conversation, next, item);
    groups::result(conn, item, Some(key), next, SaveOutcome::Stored)
}
