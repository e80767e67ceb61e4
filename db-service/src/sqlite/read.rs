//! What users see: history, heads, members, read positions.

use crate::{
    error::Result,
    item::{entry, number},
    rules::{Group, Joined},
    store::{MAX_PAGE_BYTES, Marked, Page, View},
};
use abi::v1::{Head, HeadsPage, HistoryPage, HistoryVisibility, Role};
use rusqlite::{Connection, OptionalExtension as _, params};

/// A page as the user may see it; `None` if not a member.
pub(super) fn history(
    conn: &Connection,
    view: &View,
    page: Page,
    limit: usize,
) -> Result<Option<HistoryPage>> {
    let member = conn
        .prepare_cached(
            "SELECT conversation, visible_from FROM members WHERE app = ? AND user = ? AND id = ?",
        )?
        .query_row([&view.app, &view.user, &view.conversation], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let Some((key, visible_from)) = member else { return Ok(None) };
    let (sql, bound) = match page {
        Page::After(after) => (
            "SELECT seq, countable, message_id, payload FROM entries
             WHERE conversation = ? AND seq > ? AND seq >= ? ORDER BY seq LIMIT ?",
            after,
        ),
        Page::Before(before) => (
            "SELECT seq, countable, message_id, payload FROM entries
             WHERE conversation = ? AND seq < ? AND seq >= ? ORDER BY seq DESC LIMIT ?",
            before,
        ),
    };
    let mut select = conn.prepare_cached(sql)?;
    // One more than asked for tells whether there is more.
    let mut rows = select.query(params![key, bound, visible_from, column(limit + 1)])?;
    let mut found = HistoryPage { entries: Vec::with_capacity(limit.min(64)), more: false };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let payload = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        bytes += payload.len();
        if found.entries.len() == limit || (bytes > MAX_PAGE_BYTES && !found.entries.is_empty()) {
            found.more = true;
            break;
        }
        let id = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        found.entries.push(entry(&view.app, &view.conversation, row.get(0)?, row.get(1)?, id, payload)?);
    }
    Ok(Some(found))
}

/// The conversations of a user, in order of their ids.
pub(super) fn heads(
    conn: &Connection,
    app: &str,
    user: &str,
    after: &str,
    limit: usize,
) -> Result<HeadsPage> {
    let mut select = conn.prepare_cached(
        "SELECT m.id, c.head, c.countable, m.read_seq, m.read_countable, m.visible_from, c.name, m.role,
           c.last_sent_at_ms, c.kept
         FROM members m JOIN conversations c ON c.key = m.conversation
         WHERE m.app = ? AND m.user = ? AND m.id > ? ORDER BY m.id LIMIT ?",
    )?;
    let rows = select.query_map(params![app, user, after, column(limit + 1)], |row| {
        Ok(Head {
            conversation: row.get(0)?,
            conversation_seq: number(row.get(1)?),
            countable_seq: number(row.get(2)?),
            read_seq: number(row.get(3)?),
            read_countable_seq: number(row.get(4)?),
            visible_from: number(row.get(5)?),
            name: row.get(6)?,
            role: row.get(7)?,
            last_sent_at_ms: row.get(8)?,
            kept_seq: number(row.get(9)?),
        })
    })?;
    let mut heads = rows.collect::<Result<Vec<_>, _>>()?;
    let more = heads.len() > limit;
    heads.truncate(limit);
    Ok(HeadsPage { heads, more })
}

/// A group with its members; `None` if there is none.
pub(super) fn group(conn: &Connection, app: &str, id: &str) -> Result<Option<Group>> {
    let mut select = conn
        .prepare_cached("SELECT key, members_version, history FROM conversations WHERE app = ? AND id = ?")?;
    let found = select.query_row([app, id], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i32>(2)?))
    });
    let Some((key, version, history)) = found.optional()? else { return Ok(None) };
    let mut select = conn.prepare_cached(
        "SELECT user, role, visible_from FROM members WHERE conversation = ? ORDER BY joined",
    )?;
    let members = select.query_map([key], |row| {
        let role = Role::try_from(row.get::<_, i32>(1)?).unwrap_or(Role::Member);
        Ok(Joined { user: row.get(0)?, role, visible_from: row.get(2)? })
    })?;
    let members = members.collect::<Result<_, _>>()?;
    Ok(Some(Group { version, history_all: history == i32::from(HistoryVisibility::All), members }))
}

/// Moves a read position forward; `None` if not a member.
pub(super) fn mark(conn: &Connection, view: &View, seq: i64) -> Result<Option<Marked>> {
    let mut select = conn.prepare_cached(
        "SELECT m.conversation, m.read_seq, c.head FROM members m JOIN conversations c ON c.key = m.conversation
         WHERE m.app = ? AND m.user = ? AND m.id = ?",
    )?;
    let found = select.query_row([&view.app, &view.user, &view.conversation], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    let Some((key, read_seq, head)) = found.optional()? else { return Ok(None) };
    let seq = seq.min(head);
    if seq <= read_seq {
        return Ok(Some(Marked { read_seq, moved: false }));
    }
    conn.prepare_cached(
        "UPDATE members SET read_seq = ?1,
           read_countable = (SELECT countable FROM entries WHERE conversation = ?2 AND seq = ?1)
         WHERE app = ?3 AND user = ?4 AND id = ?5",
    )?
    .execute(params![seq, key, view.app, view.user, view.conversation])?;
    Ok(Some(Marked { read_seq: seq, moved: true }))
}

fn column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
