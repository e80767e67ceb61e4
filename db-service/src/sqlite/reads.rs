//! Read positions.

use super::history;
use crate::{
    error::{Error, Result},
    heads::unread,
    item::{column, number},
    rules::Limits,
    statements::reads as sql,
    store::View,
};
use abi::v1::{MarkedRead, ReadMark, ReadPosition, Reader, Readers, Role};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Parameters: user, app, conversation.
pub(super) const POSITION: &str = "SELECT c.key, m.read_seq, m.read_countable, m.excluded,
      coalesce(m.visible_until, c.head), coalesce(m.left_countable, c.countable), m.role
    FROM conversations c JOIN members m ON m.conversation = c.key AND m.user_id = $1
    WHERE c.app = $2 AND c.id = $3";

/// Entries after the first and up to the second `conversation_seq` that do not count as unread. Parameters: user, key of the
/// conversation, the two numbers.
pub(super) const COUNT_EXCLUDED: &str = concat!(
    "SELECT count(*) FROM members m JOIN entries e ON e.conversation = m.conversation
    WHERE m.user_id = $1 AND m.conversation = $2 AND e.seq > $3 AND e.seq <= $4 AND ",
    sql::excluded!()
);

/// Parameters: key of the conversation, `conversation_seq`.
const COUNTABLE: &str = "SELECT countable FROM entries WHERE conversation = $1 AND seq = $2";

/// Parameters: `conversation_seq`, `countable_seq`, number of excluded entries, key of the conversation, user.
pub(super) const MOVE: &str = "UPDATE members SET read_seq = $1, read_countable = $2, excluded = $3
    WHERE conversation = $4 AND user_id = $5";

/// Number of members up to a limit. Parameters: key of the conversation, limit.
const COUNT_MEMBERS: &str =
    "SELECT count(*) FROM (SELECT 1 FROM members WHERE conversation = $1 AND role > 0 LIMIT $2)";

/// The senders of the entries that counted as unread before the mark. Parameters: key of the conversation, the position before and
/// after, user.
pub(super) const AUTHORS: &str = concat!(
    "SELECT DISTINCT e.sender FROM (
      SELECT conversation, seq, sender, counts FROM entries
      WHERE conversation = $1 AND seq > $2 AND seq <= $3 ORDER BY seq DESC LIMIT 1000) e
    JOIN members m ON m.conversation = e.conversation AND m.user_id = $4
    JOIN members author ON author.conversation = e.conversation AND author.user_id = e.sender AND author.role > 0
    WHERE e.counts AND NOT (",
    sql::excluded!(),
    ") ORDER BY 1 LIMIT 100"
);

/// A read position.
struct Position {
    key: i64,
    read_seq: i64,
    read_countable: i64,
    excluded: i64,
    /// The last entry that the user can see, and its `countable_seq`.
    last: i64,
    countable: i64,
    role: i32,
}

/// Moves read positions forward. A mark of a user who never was a member has no position in its result.
pub(super) fn mark_read(
    conn: &Connection,
    app: &str,
    marks: &[ReadMark],
    limits: Limits,
) -> Result<Vec<MarkedRead>> {
    marks.iter().map(|mark| move_position(conn, app, mark, limits)).collect()
}

fn move_position(conn: &Connection, app: &str, mark: &ReadMark, limits: Limits) -> Result<MarkedRead> {
    let Some(position) = position(conn, app, mark)? else { return Ok(MarkedRead::default()) };
    let seq = column(mark.conversation_seq).min(position.last);
    let (mut read_seq, mut read_countable) = (position.read_seq, position.read_countable);
    let (mut excluded, mut authors) = (position.excluded, Vec::new());
    if seq > read_seq {
        let mut select = conn.prepare_cached(COUNTABLE)?;
        let countable = select.query_row([position.key, seq], |row| row.get(0)).optional()?;
        read_countable = countable.ok_or(Error::Corrupt("a conversation lacks an entry"))?;
        excluded = count_excluded(conn, &mark.user, &position, seq)?;
        read_seq = seq;
        conn.prepare_cached(MOVE)?.execute(params![
            read_seq,
            read_countable,
            excluded,
            position.key,
            mark.user
        ])?;
        authors = find_authors(conn, &mark.user, &position, seq, limits)?;
    }
    Ok(MarkedRead {
        position: Some(ReadPosition {
            conversation: mark.conversation.clone(),
            read_seq: number(read_seq),
            unread: unread(position.countable, read_countable, excluded),
            countable_seq: number(position.countable),
        }),
        previous_seq: number(position.read_seq),
        authors,
        error: None,
    })
}

fn position(conn: &Connection, app: &str, mark: &ReadMark) -> Result<Option<Position>> {
    let mut select = conn.prepare_cached(POSITION)?;
    let position = select.query_row([&mark.user, app, &mark.conversation], |row| {
        Ok(Position {
            key: row.get(0)?,
            read_seq: row.get(1)?,
            read_countable: row.get(2)?,
            excluded: row.get(3)?,
            last: row.get(4)?,
            countable: row.get(5)?,
            role: row.get(6)?,
        })
    });
    Ok(position.optional()?)
}

/// Number of countable entries after the new position that do not count as unread. Scans the shorter of two ranges: the entries read
/// by this mark, or the entries after the new position.
fn count_excluded(conn: &Connection, user: &str, position: &Position, seq: i64) -> Result<i64> {
    let mut select = conn.prepare_cached(COUNT_EXCLUDED)?;
    let mut count = |after: i64, to: i64| -> rusqlite::Result<i64> {
        select.query_row(params![user, position.key, after, to], |row| row.get(0))
    };
    if position.last - seq <= seq - position.read_seq {
        return Ok(count(seq, position.last)?);
    }
    Ok(position.excluded - count(position.read_seq, seq)?)
}

/// The other members who sent the entries read by this mark.
fn find_authors(
    conn: &Connection,
    user: &str,
    position: &Position,
    seq: i64,
    limits: Limits,
) -> Result<Vec<String>> {
    let most = i64::try_from(limits.max_receipt_members).unwrap_or(i64::MAX);
    let mut count = conn.prepare_cached(COUNT_MEMBERS)?;
    let members: i64 = count.query_row([position.key, most.saturating_add(1)], |row| row.get(0))?;
    if position.role == i32::from(Role::Unspecified) || members > most {
        return Ok(Vec::new());
    }
    let mut select = conn.prepare_cached(AUTHORS)?;
    let rows = select.query_map(params![position.key, position.read_seq, seq, user], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The members who can see an entry; `None` if the user can't see it, or is not a member any more.
pub(super) fn readers(
    conn: &Connection,
    view: &View,
    seq: i64,
    after: &str,
    limit: usize,
) -> Result<Option<Readers>> {
    let Some((key, visibility)) = history::visibility(conn, view)? else { return Ok(None) };
    if visibility.until.is_some() || !visibility.contains(seq) {
        return Ok(None);
    }
    let sender: Option<String> =
        conn.prepare_cached(sql::SENDER)?.query_row([key, seq], |row| row.get(0)).optional()?;
    let Some(sender) = sender else { return Ok(None) };
    let mut select = conn.prepare_cached(sql::READERS)?;
    let most = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let rows = select.query_map(params![seq, key, after, sender, most], |row| {
        Ok(Reader { user: row.get(0)?, has_read: row.get(1)? })
    })?;
    let mut readers = rows.collect::<Result<Vec<_>, _>>()?;
    let more = readers.len() > limit;
    readers.truncate(limit);
    Ok(Some(Readers { readers, more }))
}
