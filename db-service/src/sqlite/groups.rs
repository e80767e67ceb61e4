//! Groups: their members, and changes of them.

use super::conversations::entry_seqs;
use crate::{
    error::Result,
    item::Item,
    outcome::{Decision, EntrySeqs, accepted_in, is_same_change, not_a_group, request_id_conflict},
    rules::{self, Effect, Group, GroupMember, Limits, Proposal},
    statements::changes as sql,
};
use abi::v1::{GroupChange, HistoryVisibility, Role, SaveOutcome, SaveResult};
use rusqlite::{Connection, params};
use std::collections::HashSet;

/// Records what a member who comes back did not see. Parameters: `conversation_seq` of the entry that adds the member, its
/// `countable_seq`, key of the conversation, user.
const INSERT_ABSENCE: &str = "INSERT INTO absences (conversation, user_id, after_seq, before_seq, countable)
    SELECT conversation, user_id, visible_until, $1, $2 - left_countable FROM members
    WHERE conversation = $3 AND user_id = $4 AND visible_until < $1 - 1";

/// Adds a member, or one who comes back: that one keeps the read position. Entries of the absence don't count as unread, all of them
/// with `hidden`, otherwise the recalled ones. Parameters: key of the conversation, app, user, role, first visible entry, read position (two seqs), join order,
/// hidden.
const ADD_MEMBER: &str = "INSERT INTO members
    (conversation, app, user_id, role, visible_from, read_seq, read_countable, excluded, joined)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8)
    ON CONFLICT (conversation, user_id) DO UPDATE SET role = excluded.role, joined = excluded.joined,
      excluded = members.excluded + CASE WHEN $9 THEN $7 - members.left_countable ELSE (
        SELECT count(*) FROM entry_states s JOIN entries e ON e.conversation = s.conversation AND e.seq = s.seq
        WHERE s.conversation = $1 AND s.seq > members.visible_until AND s.recalled_seq > 0 AND e.counts) END,
      visible_until = NULL, left_countable = NULL";

/// Parameters: `conversation_seq` of the entry that says so, its `countable_seq`, key of the conversation, user.
const REMOVE_MEMBER: &str = "UPDATE members SET role = 0, visible_until = $1, left_countable = $2
    WHERE conversation = $3 AND user_id = $4";

/// A group with its current members; `None` if it does not exist.
pub(super) fn group(conn: &Connection, app: &str, id: &str) -> Result<Option<Group>> {
    let mut select = conn.prepare_cached(sql::GROUP)?;
    let mut rows = select.query([app, id])?;
    let mut group = None;
    while let Some(row) = rows.next()? {
        let history: i32 = row.get(1)?;
        let (version, history_all) = (row.get(0)?, history == i32::from(HistoryVisibility::All));
        let group = group.get_or_insert_with(|| Group { version, history_all, members: Vec::new() });
        if let Some(user) = row.get(2)? {
            let role = Role::try_from(row.get::<_, i32>(3)?).unwrap_or(Role::Member);
            group.members.push(GroupMember { user, role, visible_from: row.get(4)? });
        }
    }
    Ok(group)
}

/// Whether a group change would be saved now. Returns its result if it is stored already. `key`: that of the group, if it exists.
pub(super) fn check(
    conn: &Connection,
    item: &Item,
    change: &GroupChange,
    key: Option<i64>,
    accounts: &HashSet<String>,
    limits: Limits,
) -> Result<Option<SaveResult>> {
    let seqs = match decide(conn, item, change, key, Some(accounts), limits)? {
        Decision::Refused(error) => return Err(error.into()),
        Decision::Allowed(..) => return Ok(None),
        Decision::Duplicate(seqs) => seqs,
    };
    let mut select = conn.prepare_cached(sql::ENTRY_PAYLOAD)?;
    let payload: Vec<u8> = select.query_row(params![key, seqs.seq], |row| row.get(0))?;
    if !is_same_change(change, payload)? {
        return Err(request_id_conflict().into());
    }
    result(conn, item, key, seqs, SaveOutcome::Duplicate).map(Some)
}

/// The result of a group change that is stored. `key`: that of the group.
pub(super) fn result(
    conn: &Connection,
    item: &Item,
    key: Option<i64>,
    seqs: EntrySeqs,
    outcome: SaveOutcome,
) -> Result<SaveResult> {
    let group = group(conn, item.app(), item.conversation())?;
    let mut select = conn.prepare_cached(sql::REMOVED)?;
    let removed = select.query_map(params![key, seqs.seq], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(accepted_in(outcome, seqs, group, removed))
}

/// Loads what the rules need, and asks them. `key`: that of the group, if it exists.
pub(super) fn decide(
    conn: &Connection,
    item: &Item,
    change: &GroupChange,
    key: Option<i64>,
    accounts: Option<&HashSet<String>>,
    limits: Limits,
) -> Result<Decision> {
    if item.is_direct() {
        return Ok(Decision::Refused(not_a_group()));
    }
    let mut existing = None;
    if let Some(key) = key {
        if let Some(seqs) = entry_seqs(conn, key, &item.id)? {
            return Ok(Decision::Duplicate(seqs));
        }
        existing = group(conn, item.app(), item.conversation())?;
    }
    let proposal = Proposal { sender: &item.sender, change: change.change.as_ref(), accounts };
    Ok(Decision::new(rules::decide(existing.as_ref(), &proposal, limits), existing.as_ref()))
}

/// Writes the effect of a change. `seqs`: those of its entry.
pub(super) fn apply(
    conn: &Connection,
    item: &Item,
    key: i64,
    seqs: EntrySeqs,
    effect: Effect,
    history_all: bool,
) -> Result<()> {
    if effect == Effect::default() {
        return Ok(());
    }
    let mut remove = conn.prepare_cached(REMOVE_MEMBER)?;
    for user in &effect.removed {
        remove.execute(params![seqs.seq, seqs.countable, key, user])?;
    }
    let roles = [(Role::Owner, &effect.promoted), (Role::Member, &effect.demoted)];
    for (role, user) in roles {
        if let Some(user) = user {
            conn.prepare_cached(sql::UPDATE_ROLE)?.execute(params![i32::from(role), key, user])?;
        }
    }
    if let Some(name) = &effect.renamed {
        conn.prepare_cached(sql::RENAME)?.execute(params![name, key])?;
    }
    let (mut absent, mut add) = (conn.prepare_cached(INSERT_ABSENCE)?, conn.prepare_cached(ADD_MEMBER)?);
    let visible_from = if history_all { 1 } else { seqs.seq };
    for (index, (user, role)) in effect.added.iter().enumerate() {
        if !history_all {
            absent.execute(params![seqs.seq, seqs.countable, key, user])?;
        }
        // Entries from before a member joined do not count as unread.
        add.execute(params![
            key,
            item.app(),
            user,
            i32::from(*role),
            visible_from,
            seqs.seq - 1,
            seqs.countable,
            rules::join_order(seqs.seq, index),
            !history_all,
        ])?;
    }
    conn.prepare_cached("UPDATE conversations SET members_version = members_version + 1 WHERE key = $1")?
        .execute([key])?;
    Ok(())
}
