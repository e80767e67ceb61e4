//! Saving: one statement for a batch of messages to existing conversations, a transaction of several statements otherwise.
//!
//! To prevent deadlocks, every transaction creates missing conversations in the order of (app, id) and then locks all
//! conversations in that order. A duplicate that another instance commits concurrently violates a unique index. The caller then
//! retries the transaction, which finds the duplicate.

use super::group;
use crate::{
    error::{Error, Result},
    item::Item,
    rules::{self, Limits},
    store::{EntrySeqs, accepted, group_not_found, rejected},
};
use abi::v1::{HistoryVisibility, Role, SaveOutcome, SaveResult, group_change};
use sqlx::{Connection as _, PgConnection};
use std::collections::{BTreeSet, HashMap};

/// Stores messages. Parameters: apps and ids of the conversations, in lock order (`$1`, `$2`); for each message the index of its
/// conversation in these lists, from 1, its id, payload and time (`$3` to `$6`); whether to store nothing if any conversation is
/// missing (`$7`). Returns one row per message whose conversation exists.
///
/// PostgreSQL rereads only locked rows after it has waited for the lock. So the heads are current, but duplicates are looked up
/// in the snapshot from before the wait.
const MESSAGES: &str = "
    WITH locked AS MATERIALIZED (
      SELECT wanted.index, found.key, found.head, found.countable
      FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (app, id, index)
      LEFT JOIN LATERAL (
        SELECT c.key, c.head, c.countable FROM conversations c
        WHERE c.app = wanted.app AND c.id = wanted.id AND (c.head > 0 OR starts_with(c.id, 'd:'))
        FOR NO KEY UPDATE
      ) found ON true
    ), heads AS MATERIALIZED (
      SELECT array_agg(key ORDER BY index) AS keys, array_agg(head ORDER BY index) AS heads,
        array_agg(countable ORDER BY index) AS countables, count(key) = count(*) AS complete
      FROM locked
    ), messages AS MATERIALIZED (
      SELECT m.nr, m.message_id, m.payload, m.sent_at_ms, heads.keys[m.index] AS key, heads.heads[m.index] AS head,
        heads.countables[m.index] AS base, stored.seq AS stored_seq, stored.countable AS stored_countable
      FROM heads CROSS JOIN unnest($3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[])
        WITH ORDINALITY AS m (index, message_id, payload, sent_at_ms, nr)
      LEFT JOIN LATERAL (
        SELECT e.seq, e.countable FROM entries e
        WHERE e.conversation = heads.keys[m.index] AND e.message_id = m.message_id LIMIT 1
      ) stored ON true
      WHERE heads.complete OR NOT $7
    ), fresh AS MATERIALIZED (
      SELECT nr, key, message_id, payload, sent_at_ms, head + row_number() OVER numbered AS seq,
        base + row_number() OVER numbered AS countable
      FROM messages WHERE key IS NOT NULL AND stored_seq IS NULL
      WINDOW numbered AS (PARTITION BY key ORDER BY nr)
    ), updated AS (
      UPDATE conversations c
      SET head = last.seq, countable = last.countable, last_sent_at_ms = last.sent_at_ms
      FROM (SELECT DISTINCT ON (key) key, seq, countable, sent_at_ms FROM fresh ORDER BY key, seq DESC) last
      WHERE c.key = last.key
    ), inserted AS (
      INSERT INTO entries (conversation, seq, countable, message_id, payload)
      SELECT key, seq, countable, message_id, payload FROM fresh
    )
    SELECT nr, seq, countable, true FROM fresh
    UNION ALL
    SELECT nr, stored_seq, stored_countable, false FROM messages WHERE stored_seq IS NOT NULL";

/// A row of [`MESSAGES`]: the number of the message, from 1; its two sequence numbers; whether it was stored by this statement.
type Row = (i64, i64, i64, bool);

/// The error if the rows of [`MESSAGES`] do not match the messages.
const UNEXPECTED_ROWS: Error = Error::Corrupt("a save returned unexpected rows");

/// Stores a batch. One attempt.
pub(super) async fn save(conn: &mut PgConnection, items: &[Item], limits: Limits) -> Result<Vec<SaveResult>> {
    if items.iter().all(|item| item.change.is_none()) {
        let results = save_messages(&mut *conn, items, true).await?;
        if results.len() == items.len() {
            return results.into_iter().collect::<Option<_>>().ok_or(UNEXPECTED_ROWS);
        }
    }
    let mut tx = conn.begin().await?;
    let created = create_conversations(&mut tx, items).await?;
    lock(&mut tx, items).await?;
    let mut results = Vec::with_capacity(items.len());
    for run in items.chunk_by(|a, b| a.change.is_none() && b.change.is_none()) {
        match &run[0].change {
            Some(change) => results.push(group::save(&mut tx, &run[0], change, limits).await?),
            None => {
                let saved = save_messages(&mut tx, run, false).await?;
                results.extend(
                    saved.into_iter().map(|result| result.unwrap_or_else(|| rejected(group_not_found()))),
                );
            }
        }
    }
    // Delete the rows of groups whose creation was refused.
    sqlx::query("DELETE FROM conversations WHERE key = ANY($1) AND head = 0")
        .bind(created)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(results)
}

/// Stores messages. The result is `None` for a message whose conversation does not exist. With `all_or_nothing`, the list is empty
/// if there is such a message.
async fn save_messages(
    conn: &mut PgConnection,
    items: &[Item],
    all_or_nothing: bool,
) -> Result<Vec<Option<SaveResult>>> {
    let (apps, ids, indexes) = conversations(items);
    // Send repeated ids only once. `numbers` maps each item to its message in `sent`.
    let mut first: HashMap<(i64, [u8; 16]), usize> = HashMap::with_capacity(items.len());
    let mut sent = Vec::with_capacity(items.len());
    let mut numbers = Vec::with_capacity(items.len());
    for (item, index) in items.iter().zip(&indexes) {
        let next = sent.len();
        let number = *first.entry((*index, item.id)).or_insert(next);
        if number == next {
            sent.push((item, *index));
        }
        numbers.push(number);
    }
    let rows: Vec<Row> = sqlx::query_as(MESSAGES)
        .bind(apps)
        .bind(ids)
        .bind(sent.iter().map(|(_, index)| *index).collect::<Vec<_>>())
        .bind(sent.iter().map(|(item, _)| item.id.as_slice()).collect::<Vec<_>>())
        .bind(sent.iter().map(|(item, _)| item.payload.as_slice()).collect::<Vec<_>>())
        .bind(sent.iter().map(|(item, _)| item.sent_at_ms).collect::<Vec<_>>())
        .bind(all_or_nothing)
        .fetch_all(conn)
        .await?;
    if all_or_nothing && rows.len() < sent.len() {
        return Ok(Vec::new());
    }
    let mut found = vec![None; sent.len()];
    for (number, seq, countable, is_new) in rows {
        let index = usize::try_from(number - 1).map_err(|_| UNEXPECTED_ROWS)?;
        *found.get_mut(index).ok_or(UNEXPECTED_ROWS)? = Some((EntrySeqs { seq, countable }, is_new));
    }
    let mut results = Vec::with_capacity(items.len());
    for number in numbers {
        results.push(found[number].as_mut().map(|(seqs, is_new)| {
            // Later items with the same id are duplicates.
            let stored = std::mem::take(is_new);
            let outcome = if stored { SaveOutcome::Stored } else { SaveOutcome::Duplicate };
            accepted(outcome, *seqs, None)
        }));
    }
    Ok(results)
}

/// The apps and ids of the conversations of a batch, in lock order, and for each item the index of its conversation, from 1.
fn conversations(items: &[Item]) -> (Vec<&str>, Vec<&str>, Vec<i64>) {
    let ordered: BTreeSet<_> = items.iter().map(|item| (item.app(), item.conversation())).collect();
    let indexes: HashMap<_, i64> = ordered.iter().copied().zip(1..).collect();
    let index = |item: &Item| indexes[&(item.app(), item.conversation())];
    let indexes = items.iter().map(index).collect();
    let (apps, ids) = ordered.into_iter().unzip();
    (apps, ids, indexes)
}

/// Creates the missing conversations of a batch: those of direct messages and those of new groups. Returns their keys.
async fn create_conversations(conn: &mut PgConnection, items: &[Item]) -> Result<Vec<i64>> {
    let may_create = |item: &&Item| match &item.change {
        None => item.is_direct(),
        Some(change) => {
            !item.is_direct() && matches!(change.change.change, Some(group_change::Change::Created(_)))
        }
    };
    let wanted: BTreeSet<_> =
        items.iter().filter(may_create).map(|item| (item.app(), item.conversation())).collect();
    let (apps, ids): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    let created: Vec<(i64, String, String)> = sqlx::query_as(
        "INSERT INTO conversations (app, id, head, countable, members_version, name, history, last_sent_at_ms)
         SELECT app, id, 0, 0, 0, '', $3, 0 FROM unnest($1::text[], $2::text[]) AS wanted (app, id)
         ON CONFLICT DO NOTHING RETURNING key, app, id",
    )
    .bind(apps)
    .bind(ids)
    .bind(i32::from(HistoryVisibility::All))
    .fetch_all(&mut *conn)
    .await?;
    let (mut keys, mut apps, mut users, mut ids, mut joined) = (vec![], vec![], vec![], vec![], vec![]);
    for (key, app, id) in &created {
        // The first entry of a group adds its members, so the list is empty for groups.
        let conversation = abi::ids::Conversation::parse(id)?;
        for (index, user) in conversation.direct_members().enumerate() {
            keys.push(*key);
            apps.push(app.as_str());
            users.push(user);
            ids.push(id.as_str());
            joined.push(rules::join_order(1, index));
        }
    }
    sqlx::query(
        "INSERT INTO members (app, user_id, id, conversation, role, visible_from, read_seq, read_countable, joined)
         SELECT app, user_id, id, key, $6, 1, 0, 0, joined
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
           AS wanted (app, user_id, id, key, joined)",
    )
    .bind(apps)
    .bind(users)
    .bind(ids)
    .bind(keys)
    .bind(joined)
    .bind(i32::from(Role::Member))
    .execute(conn)
    .await?;
    Ok(created.into_iter().map(|(key, ..)| key).collect())
}

/// Locks all conversations of a batch in lock order.
async fn lock(conn: &mut PgConnection, items: &[Item]) -> Result<()> {
    let (apps, ids, _) = conversations(items);
    sqlx::query(
        "SELECT found.key FROM unnest($1::text[], $2::text[]) AS wanted (app, id)
         CROSS JOIN LATERAL (
           SELECT c.key FROM conversations c WHERE c.app = wanted.app AND c.id = wanted.id FOR NO KEY UPDATE
         ) found",
    )
    .bind(apps)
    .bind(ids)
    .execute(conn)
    .await?;
    Ok(())
}
