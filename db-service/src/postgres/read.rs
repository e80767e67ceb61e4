//! What users see: history, heads, members, read positions.

use crate::{
    error::Result,
    item::{entry, number},
    rules::{Group, Joined},
    store::{MAX_PAGE_BYTES, Marked, Page, View},
};
use abi::v1::{Head, HeadsPage, HistoryPage, HistoryVisibility, Role};
use sqlx::{PgConnection, Row as _};

/// Entries until the page is full of bytes, and the first one beyond: it tells that there is more.
const RISING: &str = "SELECT seq, countable, message_id, payload FROM (
      SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq) - octet_length(payload) AS before FROM (
        SELECT seq, countable, message_id, payload FROM entries
        WHERE conversation = $1 AND seq > $2 AND seq >= $3 ORDER BY seq LIMIT $4) AS asked
    ) AS summed WHERE before <= $5 ORDER BY seq";
const FALLING: &str = "SELECT seq, countable, message_id, payload FROM (
      SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq DESC) - octet_length(payload) AS before FROM (
        SELECT seq, countable, message_id, payload FROM entries
        WHERE conversation = $1 AND seq < $2 AND seq >= $3 ORDER BY seq DESC LIMIT $4) AS asked
    ) AS summed WHERE before <= $5 ORDER BY seq DESC";

/// A page as the user may see it; `None` if not a member.
pub(super) async fn history(
    conn: &mut PgConnection,
    view: &View,
    page: Page,
    limit: usize,
) -> Result<Option<HistoryPage>> {
    let member: Option<(i64, i64)> = sqlx::query_as(
        "SELECT conversation, visible_from FROM members WHERE app = $1 AND user_id = $2 AND id = $3",
    )
    .bind(&view.app)
    .bind(&view.user)
    .bind(&view.conversation)
    .fetch_optional(&mut *conn)
    .await?;
    let Some((key, visible_from)) = member else { return Ok(None) };
    let (sql, bound) = match page {
        Page::After(after) => (RISING, after),
        Page::Before(before) => (FALLING, before),
    };
    let rows = sqlx::query(sql)
        .bind(key)
        .bind(bound)
        .bind(visible_from)
        .bind(column(limit + 1))
        .bind(column(MAX_PAGE_BYTES))
        .fetch_all(conn)
        .await?;
    let mut found = HistoryPage { entries: Vec::with_capacity(rows.len()), more: false };
    let mut bytes = 0;
    for row in &rows {
        let payload: &[u8] = row.try_get(3)?;
        bytes += payload.len();
        if found.entries.len() == limit || (bytes > MAX_PAGE_BYTES && !found.entries.is_empty()) {
            found.more = true;
            break;
        }
        let (seq, countable, id) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        found.entries.push(entry(&view.app, &view.conversation, seq, countable, id, payload)?);
    }
    Ok(Some(found))
}

/// The conversations of a user, in order of their ids.
pub(super) async fn heads(
    conn: &mut PgConnection,
    app: &str,
    user: &str,
    after: &str,
    limit: usize,
) -> Result<HeadsPage> {
    let rows = sqlx::query(
        "SELECT m.id, c.head, c.countable, m.read_seq, m.read_countable, m.visible_from, c.name, m.role,
           c.last_sent_at_ms, c.kept
         FROM members m JOIN conversations c ON c.key = m.conversation
         WHERE m.app = $1 AND m.user_id = $2 AND m.id > $3 ORDER BY m.id LIMIT $4",
    )
    .bind(app)
    .bind(user)
    .bind(after)
    .bind(column(limit + 1))
    .fetch_all(conn)
    .await?;
    let more = rows.len() > limit;
    let mut heads = Vec::with_capacity(rows.len());
    for row in rows.iter().take(limit) {
        heads.push(Head {
            conversation: row.try_get(0)?,
            conversation_seq: number(row.try_get(1)?),
            countable_seq: number(row.try_get(2)?),
            read_seq: number(row.try_get(3)?),
            read_countable_seq: number(row.try_get(4)?),
            visible_from: number(row.try_get(5)?),
            name: row.try_get(6)?,
            role: row.try_get(7)?,
            last_sent_at_ms: row.try_get(8)?,
            kept_seq: number(row.try_get(9)?),
        });
    }
    Ok(HeadsPage { heads, more })
}

/// A group with its members; `None` if there is none. One statement, so that the members are those of the version.
pub(super) async fn group(conn: &mut PgConnection, app: &str, id: &str) -> Result<Option<Group>> {
    let rows = sqlx::query(
        "SELECT c.members_version, c.history, m.user_id, m.role, m.visible_from
         FROM conversations c LEFT JOIN members m ON m.conversation = c.key
         WHERE c.app = $1 AND c.id = $2 ORDER BY m.joined",
    )
    .bind(app)
    .bind(id)
    .fetch_all(conn)
    .await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let history: i32 = first.try_get(1)?;
    let mut group = Group {
        version: first.try_get(0)?,
        history_all: history == i32::from(HistoryVisibility::All),
        members: Vec::with_capacity(rows.len()),
    };
    for row in &rows {
        // A group that everybody has left has one row without a member.
        if let Some(user) = row.try_get(2)? {
            let role = Role::try_from(row.try_get::<i32, _>(3)?).unwrap_or(Role::Member);
            group.members.push(Joined { user, role, visible_from: row.try_get(4)? });
        }
    }
    Ok(Some(group))
}

/// Moves a read position forward; `None` if not a member.
pub(super) async fn mark(conn: &mut PgConnection, view: &View, seq: i64) -> Result<Option<Marked>> {
    let found: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT m.conversation, m.read_seq, c.head FROM members m JOIN conversations c ON c.key = m.conversation
         WHERE m.app = $1 AND m.user_id = $2 AND m.id = $3",
    )
    .bind(&view.app)
    .bind(&view.user)
    .bind(&view.conversation)
    .fetch_optional(&mut *conn)
    .await?;
    let Some((key, read_seq, head)) = found else { return Ok(None) };
    let seq = seq.min(head);
    if seq <= read_seq {
        return Ok(Some(Marked { read_seq, moved: false }));
    }
    // Another device may have gone further meanwhile; the row knows.
    let before: Option<(i64,)> = sqlx::query_as(
        "WITH old AS (
           SELECT read_seq FROM members WHERE app = $3 AND user_id = $4 AND id = $5 FOR NO KEY UPDATE
         ), moved AS (
           UPDATE members SET read_seq = $1,
             read_countable = (SELECT countable FROM entries WHERE conversation = $2 AND seq = $1)
           FROM old WHERE app = $3 AND user_id = $4 AND id = $5 AND old.read_seq < $1
         )
         SELECT read_seq FROM old",
    )
    .bind(seq)
    .bind(key)
    .bind(&view.app)
    .bind(&view.user)
    .bind(&view.conversation)
    .fetch_optional(conn)
    .await?;
    Ok(before.map(|(before,)| Marked { read_seq: seq.max(before), moved: before < seq }))
}

fn column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
