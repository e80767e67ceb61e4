//! Heads of named conversations.

use super::history::{column, entry_row, state_row};
use crate::{
    error::Result,
    heads::{HeadRow, encoded},
    rules::Limits,
    statements::reads as sql,
    store::EncodedHead,
};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

/// Parameters: conversations, app, user, most members of a conversation with receipts.
///
/// `OFFSET 0` makes PostgreSQL look up each conversation. It might otherwise read all conversations of the app and compare their ids.
const HEADS: &str = sql::head!(
    ", CASE WHEN others.members <= $4 THEN others.read_by_any END, CASE WHEN others.members <= $4 THEN others.read_by_all END",
    "unnest($1::text[]) WITH ORDINALITY AS wanted (id, nr) CROSS JOIN LATERAL (
      SELECT * FROM conversations WHERE conversations.app = $2 AND conversations.id = wanted.id OFFSET 0) AS c",
    "$3",
    " LEFT JOIN LATERAL (
      SELECT count(*) AS members, max(o.read_seq) FILTER (WHERE o.user_id <> m.user_id) AS read_by_any,
        min(o.read_seq) FILTER (WHERE o.user_id <> m.user_id) AS read_by_all
      FROM (SELECT user_id, read_seq FROM members WHERE conversation = c.key AND role > 0 LIMIT $4 + 1) AS o
    ) AS others ON m.role > 0
    ORDER BY wanted.nr"
);

/// The heads of those conversations of which the user is or was a member.
pub(super) async fn heads_of(
    conn: &mut PgConnection,
    app: &str,
    user: &str,
    conversations: &[String],
    limits: Limits,
) -> Result<Vec<EncodedHead>> {
    let rows = sqlx::query(HEADS)
        .bind(conversations)
        .bind(app)
        .bind(user)
        .bind(column(limits.max_receipt_members))
        .fetch_all(conn)
        .await?;
    rows.iter().map(head).collect()
}

fn head(row: &PgRow) -> Result<EncodedHead> {
    let head = HeadRow {
        conversation: row.try_get(0)?,
        head: row.try_get(1)?,
        countable: row.try_get(2)?,
        read_seq: row.try_get(3)?,
        read_countable: row.try_get(4)?,
        excluded: row.try_get(5)?,
        visible_from: row.try_get(6)?,
        visible_until: row.try_get(7)?,
        name: row.try_get(8)?,
        role: row.try_get(9)?,
        last_sent_at_ms: row.try_get(10)?,
        kept: row.try_get(11)?,
        read_by_any: row.try_get::<Option<i64>, _>(26)?.unwrap_or(0),
        read_by_all: row.try_get::<Option<i64>, _>(27)?.unwrap_or(0),
    };
    let mut last = None;
    if row.try_get::<Option<i64>, _>(12)?.is_some() {
        let has_state = row.try_get::<Option<i64>, _>(18)?.is_some();
        last = Some((entry_row(row, 12)?, has_state.then(|| state_row(row, 18)).transpose()?));
    }
    encoded(head, last)
}
