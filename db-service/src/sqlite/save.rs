//! Saving: numbering, duplicates, group changes.

use super::{
    heads::{Head, Heads},
    read,
    writer::Tx,
};
use crate::{
    error::{Error, Result},
    item::{Change, Item},
    rules::{self, Effect},
    store::{Decision, Position, accepted, no_change, no_group, other_change, rejected},
};
use abi::v1::{HistoryVisibility, Role, SaveOutcome, SaveResult};
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};
use std::collections::HashSet;

const INSERT: &str =
    "INSERT INTO entries (conversation, seq, countable, message_id, payload) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (conversation, message_id) DO NOTHING";

/// Stores a batch within the writer's transaction.
pub(super) fn save(tx: &mut Tx<'_>, items: &[Item], max_members: usize) -> Result<Vec<SaveResult>> {
    let conn = tx.conn;
    let mut insert = conn.prepare_cached(INSERT)?;
    // Heads are written once per conversation and batch. They are still in memory at the end: a batch is smaller than
    // a generation of `Heads`.
    let mut touched = Vec::new();
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        results.push(match &item.change {
            None => message(conn, tx.heads, &mut insert, &mut touched, item)?,
            Some(change) => group_change(conn, tx.heads, &mut touched, item, change, max_members)?,
        });
    }
    let mut update = conn.prepare_cached(
        "UPDATE conversations SET head = ?, countable = ?, last_sent_at_ms = ? WHERE key = ?",
    )?;
    for scope in touched {
        let head = tx.heads.get(scope, || Ok(None))?.ok_or(Error::Damaged("the head of a conversation"))?;
        update.execute(params![head.seq, head.countable, head.last_sent_at_ms, head.key])?;
        head.is_dirty = false;
    }
    Ok(results)
}

fn message<'a>(
    conn: &Connection,
    heads: &mut Heads,
    insert: &mut CachedStatement<'_>,
    touched: &mut Vec<&'a str>,
    item: &'a Item,
) -> Result<SaveResult> {
    let Some(head) = heads.get(&item.scope, || load_or_begin(conn, item))? else {
        return Ok(rejected(no_group()));
    };
    let next = Position { seq: head.seq + 1, countable: head.countable + 1 };
    if insert.execute(params![head.key, next.seq, next.countable, item.id, item.payload])? == 0 {
        let known =
            position(conn, head.key, &item.id)?.ok_or(Error::Damaged("the number of a known entry"))?;
        return Ok(accepted(SaveOutcome::Duplicate, known, None));
    }
    advance(head, next, item, touched);
    Ok(accepted(SaveOutcome::Stored, next, None))
}

fn group_change<'a>(
    conn: &Connection,
    heads: &mut Heads,
    touched: &mut Vec<&'a str>,
    item: &'a Item,
    change: &Change,
    max_members: usize,
) -> Result<SaveResult> {
    let known = heads.get(&item.scope, || load(conn, item))?.map(|head| *head);
    let effect = match decide(conn, item, change, known, max_members)? {
        Decision::Known(position) => {
            let members = read::group(conn, item.app(), item.conversation())?;
            return Ok(accepted(SaveOutcome::Duplicate, position, members));
        }
        Decision::Refused(fault) => return Ok(rejected(fault)),
        Decision::Allowed(effect) => effect,
    };
    let mut head = match (known, &effect.created) {
        (Some(head), _) => head,
        (None, Some((name, history_all))) => begin(conn, item, name, *history_all)?,
        (None, None) => return Err(Error::Damaged("a change of no group was allowed")),
    };
    let next = Position { seq: head.seq + 1, countable: head.countable };
    conn.prepare_cached(INSERT)?.execute(params![
        head.key,
        next.seq,
        next.countable,
        item.id,
        item.payload
    ])?;
    apply(conn, item, &head, next.seq, effect)?;
    advance(&mut head, next, item, touched);
    heads.insert(item.scope.clone(), head);
    Ok(accepted(SaveOutcome::Stored, next, read::group(conn, item.app(), item.conversation())?))
}

/// Whether the change would be taken now, and where it is if it was.
pub(super) fn check(conn: &Connection, item: &Item, max_members: usize) -> Result<Option<SaveResult>> {
    let change = item.change.as_ref().ok_or(Error::Damaged("a message is no group change"))?;
    let head = load(conn, item)?;
    let position = match decide(conn, item, change, head, max_members)? {
        Decision::Refused(fault) => return Err(fault.into()),
        Decision::Allowed(_) => return Ok(None),
        Decision::Known(position) => position,
    };
    let mut select = conn.prepare_cached("SELECT payload FROM entries WHERE conversation = ? AND seq = ?")?;
    let payload: Vec<u8> =
        select.query_row(params![head.map(|head| head.key), position.seq], |row| row.get(0))?;
    if !change.is_in(&payload)? {
        return Err(other_change().into());
    }
    let members = read::group(conn, item.app(), item.conversation())?;
    Ok(Some(accepted(SaveOutcome::Duplicate, position, members)))
}

fn decide(
    conn: &Connection,
    item: &Item,
    change: &Change,
    head: Option<Head>,
    max_members: usize,
) -> Result<Decision> {
    if item.is_direct() {
        return Ok(Decision::Refused(no_change()));
    }
    if let Some(head) = head
        && let Some(position) = position(conn, head.key, &item.id)?
    {
        return Ok(Decision::Known(position));
    }
    let group = match head {
        Some(_) => read::group(conn, item.app(), item.conversation())?,
        None => None,
    };
    let seq = head.map_or(1, |head| head.seq + 1);
    let what = change.change.change.as_ref();
    let accounts = accounts(conn, item.app(), rules::newcomers(what, max_members))?;
    let decision = rules::decide(group.as_ref(), &change.sender, what, seq, &accounts, max_members);
    Ok(decision.map_or_else(Decision::Refused, Decision::Allowed))
}

/// Those of `users` that have an account.
fn accounts(conn: &Connection, app: &str, users: HashSet<&str>) -> Result<HashSet<String>> {
    let mut select = conn.prepare_cached("SELECT 1 FROM users WHERE app = ? AND user = ?")?;
    let mut accounts = HashSet::new();
    for user in users {
        if select.exists([app, user])? {
            accounts.insert(user.to_owned());
        }
    }
    Ok(accounts)
}

fn apply(conn: &Connection, item: &Item, head: &Head, seq: i64, effect: Effect) -> Result<()> {
    let (app, id) = (item.app(), item.conversation());
    let mut remove = conn.prepare_cached("DELETE FROM members WHERE app = ? AND user = ? AND id = ?")?;
    for user in &effect.removed {
        remove.execute([app, user, id])?;
    }
    let mut promote =
        conn.prepare_cached("UPDATE members SET role = ? WHERE app = ? AND user = ? AND id = ?")?;
    if let Some(user) = &effect.promoted {
        promote.execute(params![i32::from(Role::Owner), app, user, id])?;
    }
    let mut add = conn.prepare_cached(ADD_MEMBER)?;
    for (place, member) in effect.added.into_iter().enumerate() {
        // What was said before one joined is not unread.
        add.execute(params![
            app,
            member.user,
            id,
            head.key,
            i32::from(member.role),
            member.visible_from,
            seq - 1,
            head.countable,
            rules::joined_order(seq, place),
        ])?;
    }
    conn.prepare_cached("UPDATE conversations SET members_version = members_version + 1 WHERE key = ?")?
        .execute([head.key])?;
    Ok(())
}

const ADD_MEMBER: &str = "INSERT INTO members
    (app, user, id, conversation, role, visible_from, read_seq, read_countable, joined)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";

fn load(conn: &Connection, item: &Item) -> Result<Option<Head>> {
    let mut select = conn.prepare_cached(
        "SELECT key, head, countable, last_sent_at_ms FROM conversations WHERE app = ? AND id = ?",
    )?;
    let head = select.query_row([item.app(), item.conversation()], |row| {
        Ok(Head {
            key: row.get(0)?,
            seq: row.get(1)?,
            countable: row.get(2)?,
            last_sent_at_ms: row.get(3)?,
            is_dirty: false,
        })
    });
    Ok(head.optional()?)
}

/// A direct conversation begins with its first message.
fn load_or_begin(conn: &Connection, item: &Item) -> Result<Option<Head>> {
    if let Some(head) = load(conn, item)? {
        return Ok(Some(head));
    }
    if !item.is_direct() {
        return Ok(None);
    }
    let head = begin(conn, item, "", true)?;
    let mut add = conn.prepare_cached(ADD_MEMBER)?;
    for (place, user) in item.direct_members().enumerate() {
        let (app, id, role) = (item.app(), item.conversation(), i32::from(Role::Member));
        add.execute(params![app, user, id, head.key, role, 1, 0, 0, rules::joined_order(1, place)])?;
    }
    Ok(Some(head))
}

fn begin(conn: &Connection, item: &Item, name: &str, history_all: bool) -> Result<Head> {
    let history = if history_all { HistoryVisibility::All } else { HistoryVisibility::FromJoin };
    conn.prepare_cached(
        "INSERT INTO conversations (app, id, head, countable, members_version, name, history, last_sent_at_ms)
         VALUES (?, ?, 0, 0, 0, ?, ?, 0)",
    )?
    .execute(params![item.app(), item.conversation(), name, i32::from(history)])?;
    Ok(Head { key: conn.last_insert_rowid(), seq: 0, countable: 0, last_sent_at_ms: 0, is_dirty: false })
}

fn position(conn: &Connection, key: i64, id: &[u8; 16]) -> Result<Option<Position>> {
    let mut select =
        conn.prepare_cached("SELECT seq, countable FROM entries WHERE conversation = ? AND message_id = ?")?;
    let found =
        select.query_row(params![key, id], |row| Ok(Position { seq: row.get(0)?, countable: row.get(1)? }));
    Ok(found.optional()?)
}

fn advance<'a>(head: &mut Head, next: Position, item: &'a Item, touched: &mut Vec<&'a str>) {
    (head.seq, head.countable, head.last_sent_at_ms) = (next.seq, next.countable, item.sent_at_ms);
    if !head.is_dirty {
        head.is_dirty = true;
        touched.push(&item.scope);
    }
}
