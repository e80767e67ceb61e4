//! Read positions.

use super::history::{self, column};
use crate::{
    error::{Error, Result},
    heads::unread,
    item::{self, number},
    rules::Limits,
    statements::reads as sql,
    store::View,
};
use abi::v1::{MarkedRead, ReadMark, ReadPosition, Reader, Readers};
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};
use std::collections::BTreeSet;

/// Moves read positions. Parameters: conversations in lock order (`$1`), app (`$2`); for each mark the index of its conversation
/// from 1, its user and its `conversation_seq` (`$3` to `$5`); most members of a conversation with receipts (`$6`). Returns one row
/// per mark of a member.
///
/// The new number of excluded entries is counted over the shorter of two ranges: the entries read by the mark, or the entries after
/// the new position.
///
/// PostgreSQL rereads only locked rows after it has waited for the lock. If the head of a conversation has changed meanwhile, the
/// statement does not see the new entries: it leaves the position as it is, and `is_current` is false.
const MARK_READ: &str = concat!(
    "WITH locked AS MATERIALIZED (
      SELECT wanted.index, found.key, found.head, found.countable, (
          SELECT count(*) <= $6 FROM (
            SELECT FROM members o WHERE o.conversation = found.key AND o.role > 0 LIMIT $6 + 1) AS counted
        ) AS sends_receipts,
        (SELECT c.head FROM conversations c WHERE c.key = found.key) = found.head AS is_current
      FROM unnest($1::text[]) WITH ORDINALITY AS wanted (id, index)
      LEFT JOIN LATERAL (
        SELECT c.key, c.head, c.countable FROM conversations c WHERE c.app = $2 AND c.id = wanted.id FOR NO KEY UPDATE
      ) AS found ON true
    ), conversations_of AS MATERIALIZED (
      SELECT array_agg(key ORDER BY index) AS keys, array_agg(head ORDER BY index) AS heads,
        array_agg(countable ORDER BY index) AS countables, array_agg(sends_receipts ORDER BY index) AS sends_receipts,
        array_agg(is_current ORDER BY index) AS is_current
      FROM locked
    ), old AS MATERIALIZED (
      SELECT mark.nr, m.conversation, m.user_id, m.role, m.read_seq, m.read_countable, m.excluded,
        coalesce(m.visible_until, found.heads[mark.index]) AS last,
        coalesce(m.left_countable, found.countables[mark.index]) AS countable,
        greatest(m.read_seq, least(mark.seq, coalesce(m.visible_until, found.heads[mark.index]))) AS seq,
        found.sends_receipts[mark.index] AND m.role > 0 AS sends_receipts, found.is_current[mark.index] AS is_current
      FROM conversations_of AS found
      CROSS JOIN unnest($3::bigint[], $4::text[], $5::bigint[]) WITH ORDINALITY AS mark (index, user_id, seq, nr)
      JOIN LATERAL (
        SELECT * FROM members WHERE members.conversation = found.keys[mark.index] AND members.user_id = mark.user_id
        FOR NO KEY UPDATE
      ) AS m ON true
    ), new AS MATERIALIZED (
      SELECT m.*,
        CASE WHEN m.seq = m.read_seq THEN m.read_countable
          ELSE (SELECT e.countable FROM entries e WHERE e.conversation = m.conversation AND e.seq = m.seq)
        END AS new_countable,
        CASE WHEN m.seq = m.read_seq THEN m.excluded
          WHEN m.last - m.seq <= m.seq - m.read_seq THEN (
            SELECT count(*) FROM entries e
            WHERE e.conversation = m.conversation AND e.seq > m.seq AND e.seq <= m.last AND ",
    sql::excluded!(),
    ")
          ELSE m.excluded - (
            SELECT count(*) FROM entries e
            WHERE e.conversation = m.conversation AND e.seq > m.read_seq AND e.seq <= m.seq AND ",
    sql::excluded!(),
    ")
        END AS new_excluded,
        CASE WHEN m.sends_receipts AND m.seq > m.read_seq THEN ARRAY(
          SELECT DISTINCT e.sender FROM (
            SELECT conversation, seq, sender, counts FROM entries
            WHERE conversation = m.conversation AND seq > m.read_seq AND seq <= m.seq ORDER BY seq DESC LIMIT 1000
          ) AS e
          JOIN members author ON author.conversation = m.conversation AND author.user_id = e.sender AND author.role > 0
          WHERE e.counts AND NOT (",
    sql::excluded!(),
    ") ORDER BY 1 LIMIT 100
        ) ELSE ARRAY[]::text[] END AS authors
      FROM old m
    ), moved AS (
      UPDATE members SET read_seq = new.seq, read_countable = new.new_countable, excluded = new.new_excluded
      FROM new WHERE members.conversation = new.conversation AND members.user_id = new.user_id
        AND new.is_current AND new.seq > new.read_seq
    )
    SELECT nr, is_current, read_seq, seq, countable, new_countable, new_excluded, authors FROM new"
);

/// Locks conversations. Parameters: their ids in lock order, app.
const LOCK: &str = "SELECT found.key FROM unnest($1::text[]) WITH ORDINALITY AS wanted (id, index)
    JOIN LATERAL (
      SELECT c.key FROM conversations c WHERE c.app = $2 AND c.id = wanted.id FOR NO KEY UPDATE
    ) AS found ON true";

/// Moves read positions forward. A mark of a user who never was a member has no position in its result. One attempt.
///
/// Marks of conversations that changed while the statement waited for their locks are repeated under the locks.
pub(super) async fn mark_read(
    conn: &mut PgConnection,
    app: &str,
    marks: &[ReadMark],
    limits: Limits,
) -> Result<Vec<MarkedRead>> {
    let mut results = vec![MarkedRead::default(); marks.len()];
    let all: Vec<_> = (0..marks.len()).collect();
    let outdated = move_positions(&mut *conn, app, marks, &all, limits, &mut results).await?;
    if !outdated.is_empty() {
        let mut tx = conn.begin().await?;
        let ids: BTreeSet<_> = outdated.iter().map(|index| marks[*index].conversation.as_str()).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        sqlx::query(LOCK).bind(ids).bind(app).execute(&mut *tx).await?;
        if !move_positions(&mut tx, app, marks, &outdated, limits, &mut results).await?.is_empty() {
            return Err(Error::Corrupt("a locked conversation has changed"));
        }
        tx.commit().await?;
    }
    Ok(results)
}

/// Executes [`MARK_READ`] for the marks with these indexes. Returns those that have to be repeated.
async fn move_positions(
    conn: &mut PgConnection,
    app: &str,
    marks: &[ReadMark],
    indexes: &[usize],
    limits: Limits,
    results: &mut [MarkedRead],
) -> Result<Vec<usize>> {
    let ids: BTreeSet<_> = indexes.iter().map(|index| marks[*index].conversation.as_str()).collect();
    let ids: Vec<_> = ids.into_iter().collect();
    let (mut of, mut users, mut seqs) = (Vec::new(), Vec::new(), Vec::new());
    for mark in indexes.iter().map(|index| &marks[*index]) {
        of.push(ids.binary_search(&mark.conversation.as_str()).map_or(0, |found| column(found + 1)));
        users.push(mark.user.as_str());
        seqs.push(item::column(mark.conversation_seq));
    }
    let statement = sqlx::query(MARK_READ).bind(&ids).bind(app).bind(of).bind(users).bind(seqs);
    let rows = statement.bind(column(limits.max_receipt_members)).fetch_all(conn).await?;
    let mut outdated = Vec::new();
    for row in &rows {
        let nr =
            usize::try_from(row.try_get::<i64, _>(0)?).ok().and_then(|nr| indexes.get(nr.checked_sub(1)?));
        let index = *nr.ok_or(Error::Corrupt("a read mark returned an unexpected row"))?;
        if row.try_get(1)? {
            results[index] = marked(row, &marks[index].conversation)?;
        } else {
            outdated.push(index);
        }
    }
    Ok(outdated)
}

fn marked(row: &PgRow, conversation: &str) -> Result<MarkedRead> {
    let countable: i64 = row.try_get(4)?;
    let new_countable: Option<i64> = row.try_get(5)?;
    let new_countable = new_countable.ok_or(Error::Corrupt("a conversation lacks an entry"))?;
    Ok(MarkedRead {
        position: Some(ReadPosition {
            conversation: conversation.to_owned(),
            read_seq: number(row.try_get(3)?),
            unread: unread(countable, new_countable, row.try_get(6)?),
            countable_seq: number(countable),
        }),
        previous_seq: number(row.try_get(2)?),
        authors: row.try_get(7)?,
        error: None,
    })
}

/// The members who can see an entry; `None` if the user can't see it, or is not a member any more.
pub(super) async fn readers(
    conn: &mut PgConnection,
    view: &View,
    seq: i64,
    after: &str,
    limit: usize,
) -> Result<Option<Readers>> {
    let Some((key, visibility)) = history::visibility(&mut *conn, view).await? else { return Ok(None) };
    if visibility.until.is_some() || !visibility.contains(seq) {
        return Ok(None);
    }
    let select = sqlx::query_scalar(sql::SENDER).bind(key).bind(seq);
    let sender: Option<String> = select.fetch_optional(&mut *conn).await?;
    let Some(sender) = sender else { return Ok(None) };
    let select = sqlx::query_as(sql::READERS).bind(seq).bind(key).bind(after).bind(sender);
    let rows: Vec<(String, bool)> = select.bind(column(limit + 1)).fetch_all(conn).await?;
    let more = rows.len() > limit;
    let reader = |(user, has_read)| Reader { user, has_read };
    Ok(Some(Readers { readers: rows.into_iter().take(limit).map(reader).collect(), more }))
}
