//! Heads of named conversations.

use super::history::{entry_row, state_row};
use crate::{
    error::Result,
    heads::{HeadRow, encoded},
    rules::Limits,
    statements::reads as sql,
    store::EncodedHead,
};
use abi::v1::Role;
use rusqlite::{Connection, Row, params};

/// Parameters: user, app, conversation.
pub(super) const HEAD: &str =
    sql::head!(", c.key", "conversations c", "$1", " WHERE c.app = $2 AND c.id = $3");

/// The number of members up to a limit, and the greatest and the least read position of all but one. Parameters: user, key of the
/// conversation, limit.
pub(super) const READ_BY_OTHERS: &str = "SELECT count(*), max(read_seq) FILTER (WHERE user_id <> $1),
      min(read_seq) FILTER (WHERE user_id <> $1)
    FROM (SELECT user_id, read_seq FROM members WHERE conversation = $2 AND role > 0 LIMIT $3)";

/// The heads of those conversations of which the user is or was a member.
pub(super) fn heads_of(
    conn: &Connection,
    app: &str,
    user: &str,
    conversations: &[String],
    limits: Limits,
) -> Result<Vec<EncodedHead>> {
    let mut select = conn.prepare_cached(HEAD)?;
    let mut heads = Vec::with_capacity(conversations.len());
    for conversation in conversations {
        let mut rows = select.query([user, app, conversation])?;
        let Some(row) = rows.next()? else { continue };
        let mut head = head_row(row)?;
        if head.role != i32::from(Role::Unspecified) {
            (head.read_by_any, head.read_by_all) = read_by_others(conn, user, row.get(26)?, limits)?;
        }
        let mut last = None;
        if row.get::<_, Option<i64>>(12)?.is_some() {
            let has_state = row.get::<_, Option<i64>>(18)?.is_some();
            last = Some((entry_row(row, 12)?, has_state.then(|| state_row(row, 18)).transpose()?));
        }
        heads.push(encoded(head, last)?);
    }
    Ok(heads)
}

fn head_row(row: &Row<'_>) -> rusqlite::Result<HeadRow> {
    Ok(HeadRow {
        conversation: row.get(0)?,
        head: row.get(1)?,
        countable: row.get(2)?,
        read_seq: row.get(3)?,
        read_countable: row.get(4)?,
        excluded: row.get(5)?,
        visible_from: row.get(6)?,
        visible_until: row.get(7)?,
        name: row.get(8)?,
        role: row.get(9)?,
        last_sent_at_ms: row.get(10)?,
        kept: row.get(11)?,
        read_by_any: 0,
        read_by_all: 0,
    })
}

/// The greatest and the least read position of the other members. Both are 0 if receipts are not sent.
fn read_by_others(conn: &Connection, user: &str, key: i64, limits: Limits) -> Result<(i64, i64)> {
    let most = i64::try_from(limits.max_receipt_members).unwrap_or(i64::MAX);
    let mut select = conn.prepare_cached(READ_BY_OTHERS)?;
    let (members, any, all): (i64, Option<i64>, Option<i64>) = select
        .query_row(params![user, key, most.saturating_add(1)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    Ok(if members > most { (0, 0) } else { (any.unwrap_or(0), all.unwrap_or(0)) })
}
