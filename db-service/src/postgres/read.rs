//! Reads for users: history, heads, members, read positions.

use crate::{
    error::Result,
    item::{entry, number},
    rules::{Group, GroupMember},
    statements as sql,
    store::{Page, PageLimit, ReadPosition, View},
};
use abi::v1::{Head, HeadsPage, HistoryPage, HistoryVisibility, Role};
use sqlx::{PgConnection, Row as _};

/// Returns entries up to the byte limit and the first one beyond it, which shows that there are more. Parameters: key of the
/// conversation, bound, first visible entry, most entries, most bytes.
const ASCENDING: &str = "SELECT seq, countable, message_id, payload FROM (
      SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq) - octet_length(payload) AS before FROM (
        SELECT seq, countable, message_id, payload FROM entries
        WHERE conversation = $1 AND seq > $2 AND seq >= $3 ORDER BY seq LIMIT $4) AS asked
    ) AS summed WHERE before <= $5 ORDER BY seq";
/// Like [`ASCENDING`], in the other direction.
const DESCENDING: &str = "SELECT seq, countable, message_id, payload FROM (
      SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq DESC) - octet_length(payload) AS before FROM (
        SELECT seq, countable, message_id, payload FROM entries
        WHERE conversation = $1 AND seq < $2 AND seq >= $3 ORDER BY seq DESC LIMIT $4) AS asked
    ) AS summed WHERE before <= $5 ORDER BY seq DESC";

/// Parameters: the new position, key of the conversation, app, user, conversation. Returns the previous position.
const MARK_READ: &str = "WITH old AS (
      SELECT read_seq FROM members WHERE app = $3 AND user_id = $4 AND id = $5 FOR NO KEY UPDATE
    ), moved AS (
      UPDATE members SET read_seq = $1,
        read_countable = (SELECT countable FROM entries WHERE conversation = $2 AND seq = $1)
      FROM old WHERE app = $3 AND user_id = $4 AND id = $5 AND old.read_seq < $1
    )
    SELECT read_seq FROM old";

/// A page with the entries that the user may see; `None` if the user is not a member.
pub(super) async fn history(
    conn: &mut PgConnection,
    view: &View,
    page: Page,
    limit: PageLimit,
) -> Result<Option<HistoryPage>> {
    let member: Option<(i64, i64)> = sqlx::query_as(sql::MEMBER)
        .bind(&view.app)
        .bind(&view.user)
        .bind(&view.conversation)
        .fetch_optional(&mut *conn)
        .await?;
    let Some((key, visible_from)) = member else { return Ok(None) };
    let (statement, bound) = match page {
        Page::After(after) => (ASCENDING, after),
        Page::Before(before) => (DESCENDING, before),
    };
    let rows = sqlx::query(statement)
        .bind(key)
        .bind(bound)
        .bind(visible_from)
        .bind(column(limit.entries + 1))
        .bind(column(limit.bytes))
        .fetch_all(conn)
        .await?;
    let mut found = HistoryPage { entries: Vec::with_capacity(rows.len()), more: false };
    let mut bytes = 0;
    for row in &rows {
        let payload: &[u8] = row.try_get(3)?;
        bytes += payload.len();
        if found.entries.len() == limit.entries || (bytes > limit.bytes && !found.entries.is_empty()) {
            found.more = true;
            break;
        }
        let (seq, countable, id) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        found.entries.push(entry(&view.app, &view.conversation, seq, countable, id, payload)?);
    }
    Ok(Some(found))
}

/// The conversations of a user, ordered by id.
pub(super) async fn heads(
    conn: &mut PgConnection,
    app: &str,
    user: &str,
    after: &str,
    limit: usize,
) -> Result<HeadsPage> {
    let select = sqlx::query(sql::HEADS).bind(app).bind(user).bind(after).bind(column(limit + 1));
    let rows = select.fetch_all(conn).await?;
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

/// A group with its members; `None` if it does not exist.
pub(super) async fn group(conn: &mut PgConnection, app: &str, id: &str) -> Result<Option<Group>> {
    let rows = sqlx::query(sql::GROUP).bind(app).bind(id).fetch_all(conn).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let history: i32 = first.try_get(1)?;
    let mut group = Group {
        version: first.try_get(0)?,
        history_all: history == i32::from(HistoryVisibility::All),
        members: Vec::with_capacity(rows.len()),
    };
    for row in &rows {
        if let Some(user) = row.try_get(2)? {
            let role = Role::try_from(row.try_get::<i32, _>(3)?).unwrap_or(Role::Member);
            group.members.push(GroupMember { user, role, visible_from: row.try_get(4)? });
        }
    }
    Ok(Some(group))
}

/// Moves a read position forward; `None` if the user is not a member.
pub(super) async fn mark_read(
    conn: &mut PgConnection,
    view: &View,
    seq: i64,
) -> Result<Option<ReadPosition>> {
    let found: Option<(i64, i64, i64)> = sqlx::query_as(sql::READ_POSITION)
        .bind(&view.app)
        .bind(&view.user)
        .bind(&view.conversation)
        .fetch_optional(&mut *conn)
        .await?;
    let Some((key, read_seq, head)) = found else { return Ok(None) };
    let seq = seq.min(head);
    if seq <= read_seq {
        return Ok(Some(ReadPosition { read_seq, moved: false }));
    }
    // Another device of the user may have moved the position since. The statement locks the row and compares again.
    let previous: Option<i64> = sqlx::query_scalar(MARK_READ)
        .bind(seq)
        .bind(key)
        .bind(&view.app)
        .bind(&view.user)
        .bind(&view.conversation)
        .fetch_optional(conn)
        .await?;
    Ok(previous.map(|previous| ReadPosition { read_seq: seq.max(previous), moved: previous < seq }))
}

fn column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
