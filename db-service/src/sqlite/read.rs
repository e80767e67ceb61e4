//! Reads for users: history, heads, members, read positions.

use crate::{
    error::Result,
    item::{entry, number},
    rules::{Group, GroupMember},
    statements as sql,
    store::{Page, PageLimit, ReadPosition, View},
};
use abi::v1::{Head, HeadsPage, HistoryPage, HistoryVisibility, Role};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Parameters: key of the conversation, bound, first visible entry, limit.
const ASCENDING: &str = "SELECT seq, countable, message_id, payload FROM entries
    WHERE conversation = $1 AND seq > $2 AND seq >= $3 ORDER BY seq LIMIT $4";
/// Parameters: those of [`ASCENDING`].
const DESCENDING: &str = "SELECT seq, countable, message_id, payload FROM entries
    WHERE conversation = $1 AND seq < $2 AND seq >= $3 ORDER BY seq DESC LIMIT $4";

/// A page with the entries that the user may see; `None` if the user is not a member.
pub(super) fn history(
    conn: &Connection,
    view: &View,
    page: Page,
    limit: PageLimit,
) -> Result<Option<HistoryPage>> {
    let member = conn
        .prepare_cached(sql::MEMBER)?
        .query_row([&view.app, &view.user, &view.conversation], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()?;
    let Some((key, visible_from)) = member else { return Ok(None) };
    let (statement, bound) = match page {
        Page::After(after) => (ASCENDING, after),
        Page::Before(before) => (DESCENDING, before),
    };
    let mut select = conn.prepare_cached(statement)?;
    // One entry beyond the limit shows that there are more.
    let mut rows = select.query(params![key, bound, visible_from, column(limit.entries + 1)])?;
    let mut found = HistoryPage { entries: Vec::with_capacity(limit.entries.min(64)), more: false };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let payload = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
        bytes += payload.len();
        if found.entries.len() == limit.entries || (bytes > limit.bytes && !found.entries.is_empty()) {
            found.more = true;
            break;
        }
        let id = row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?;
        found.entries.push(entry(&view.app, &view.conversation, row.get(0)?, row.get(1)?, id, payload)?);
    }
    Ok(Some(found))
}

/// The conversations of a user, ordered by id.
pub(super) fn heads(
    conn: &Connection,
    app: &str,
    user: &str,
    after: &str,
    limit: usize,
) -> Result<HeadsPage> {
    let mut select = conn.prepare_cached(sql::HEADS)?;
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

/// A group with its members; `None` if it does not exist.
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

/// Moves a read position forward; `None` if the user is not a member.
pub(super) fn mark_read(conn: &Connection, view: &View, seq: i64) -> Result<Option<ReadPosition>> {
    let mut select = conn.prepare_cached(sql::READ_POSITION)?;
    let found = select.query_row([&view.app, &view.user, &view.conversation], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    let Some((key, read_seq, head)) = found.optional()? else { return Ok(None) };
    let seq = seq.min(head);
    if seq <= read_seq {
        return Ok(Some(ReadPosition { read_seq, moved: false }));
    }
    conn.prepare_cached(
        "UPDATE members SET read_seq = $1,
           read_countable = (SELECT countable FROM entries WHERE conversation = $2 AND seq = $1)
         WHERE app = $3 AND user_id = $4 AND id = $5",
    )?
    .execute(params![seq, key, view.app, view.user, view.conversation])?;
    Ok(Some(ReadPosition { read_seq: seq, moved: true }))
}

fn column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
