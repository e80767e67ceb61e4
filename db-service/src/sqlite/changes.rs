//! Changes of entries: edits, recalls, reactions. Also the check of any change before it is logged.

use super::{
    conversations::{entry_seqs, load, role},
    groups,
};
use crate::{
    error::Result,
    item::{Change, EntryChange, Item},
    outcome::{EntryDecision, accepted, accepted_with},
    rules::{
        Limits,
        entries::{
            self, EntryEffect, Proposal, State, Target, decode_own_reactions, encode_own_reactions,
            no_such_entry,
        },
        outsider,
    },
    statements::changes as sql,
};
use abi::v1::{SaveOutcome, SaveResult};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::HashSet;

/// Whether a message would be accepted now. `key`: that of the conversation, if it exists.
///
/// The role is read first. If the sender is removed between the two statements, a message from before the removal is found.
fn check_message(conn: &Connection, item: &Item, key: Option<i64>) -> Result<Option<SaveResult>> {
    let is_member = match key {
        Some(key) => role(conn, key, &item.sender)?.is_some(),
        None => item.is_direct() && !item.is_stranger,
    };
    let stored = key.map(|key| entry_seqs(conn, key, &item.id)).transpose()?.flatten();
    match stored {
        Some(seqs) => Ok(Some(accepted(SaveOutcome::Duplicate, seqs))),
        None if is_member => Ok(None),
        None => Err(outsider().into()),
    }
}

/// Whether [`save`](super::save::save) would accept the change now. Returns its result if it is stored already.
pub(super) fn check(
    conn: &Connection,
    item: &Item,
    accounts: &HashSet<String>,
    limits: Limits,
) -> Result<Option<SaveResult>> {
    let conversation = load(conn, item)?;
    match &item.change {
        None => check_message(conn, item, conversation.map(|conversation| conversation.key)),
        Some(Change::Group(change)) => {
            let key = conversation.map(|conversation| conversation.key);
            groups::check(conn, item, change, key, accounts, limits)
        }
        Some(Change::Entry(change)) => {
            let conversation = conversation.ok_or_else(|| no_such_entry(item))?;
            let seq = conversation.next(false).seq;
            match decide(conn, item, change, conversation.key, seq, Some(limits))? {
                EntryDecision::Refused(error) => Err(error.into()),
                EntryDecision::Allowed(..) => Ok(None),
                EntryDecision::Duplicate(seqs, state) => {
                    Ok(Some(accepted_with(SaveOutcome::Duplicate, seqs, state)))
                }
            }
        }
    }
}

/// Loads what the rules need, and asks them. `seq`: the `conversation_seq` that the change would get.
pub(super) fn decide(
    conn: &Connection,
    item: &Item,
    change: &EntryChange,
    key: i64,
    seq: i64,
    windows: Option<Limits>,
) -> Result<EntryDecision> {
    if let Some(seqs) = entry_seqs(conn, key, &item.id)? {
        let state = if seqs.target > 0 { Some(state(conn, key, seqs.target)?) } else { None };
        return Ok(EntryDecision::Duplicate(seqs, state));
    }
    let member = role(conn, key, &item.sender)?;
    let target = match (member, &item.refers_to) {
        (Some((_, visible_from)), Some(id)) => target(conn, item, key, id, visible_from)?,
        _ => None,
    };
    let proposal = Proposal {
        sender: &item.sender,
        role: member.map(|(role, _)| role),
        change,
        seq,
        sent_at_ms: item.sent_at_ms,
        windows,
    };
    EntryDecision::new(entries::decide(target.as_ref(), &proposal), target)
}

/// Writes the effect of a change. Returns the state of the entry after it.
pub(super) fn apply(
    conn: &Connection,
    item: &Item,
    key: i64,
    target: &Target,
    effect: EntryEffect,
) -> Result<State> {
    let State { changed_seq, edits, edited_at_ms, edit_seq, recalled_seq, .. } = effect.state;
    conn.prepare_cached(sql::REPLACE_STATE)?.execute(params![
        key,
        target.seq,
        changed_seq,
        edits,
        edited_at_ms,
        edit_seq,
        recalled_seq,
        effect.state.recalled_by,
        effect.state.encode_reactions(),
    ])?;
    match &effect.own_reactions {
        None => {}
        Some(own) if own.is_empty() => {
            let mut delete = conn.prepare_cached(sql::DELETE_REACTIONS)?;
            delete.execute(params![key, target.seq, item.sender])?;
        }
        Some(own) => {
            let mut replace = conn.prepare_cached(sql::REPLACE_REACTIONS)?;
            replace.execute(params![key, target.seq, item.sender, encode_own_reactions(own)])?;
        }
    }
    if effect.is_recall && target.counts {
        conn.prepare_cached(sql::EXCLUDE_RECALLED)?.execute(params![key, target.seq, target.sender])?;
    }
    Ok(effect.state)
}

/// The entry that a change refers to; `None` if it does not exist.
fn target(
    conn: &Connection,
    item: &Item,
    key: i64,
    id: &[u8; 16],
    visible_from: i64,
) -> Result<Option<Target>> {
    let mut select = conn.prepare_cached(sql::TARGET)?;
    let found = select.query_row(params![item.sender, key, id], |row| {
        let (seq, is_hidden): (i64, bool) = (row.get(0)?, row.get(5)?);
        Ok(Target {
            seq,
            sender: row.get(1)?,
            sent_at_ms: row.get(2)?,
            kind: row.get(3)?,
            counts: row.get(4)?,
            is_visible: visible_from <= seq && !is_hidden,
            state: State::default(),
            own_reactions: Vec::new(),
        })
    });
    let Some(target) = found.optional()? else { return Ok(None) };
    let own: Option<Vec<u8>> = conn
        .prepare_cached(sql::OWN_REACTIONS)?
        .query_row(params![key, target.seq, item.sender], |row| row.get(0))
        .optional()?;
    let own_reactions = own.map_or_else(|| Ok(Vec::new()), |own| decode_own_reactions(&own))?;
    Ok(Some(Target { state: state(conn, key, target.seq)?, own_reactions, ..target }))
}

/// The state of an entry. That of an entry without changes is the default.
fn state(conn: &Connection, key: i64, seq: i64) -> Result<State> {
    let columns = |row: &Row<'_>| {
        let state = State {
            changed_seq: row.get(0)?,
            edits: row.get(1)?,
            edited_at_ms: row.get(2)?,
            edit_seq: row.get(3)?,
            recalled_seq: row.get(4)?,
            recalled_by: row.get(5)?,
            reactions: Vec::new(),
        };
        Ok((state, row.get::<_, Vec<u8>>(6)?))
    };
    let mut select = conn.prepare_cached(sql::STATE)?;
    let Some((state, reactions)) = select.query_row(params![key, seq], columns).optional()? else {
        return Ok(State::default());
    };
    Ok(State { reactions: State::decode_reactions(&reactions)?, ..state })
}
