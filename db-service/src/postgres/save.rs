//! Saving: one statement for messages to conversations that exist, a transaction of several for all else.
//!
//! Whatever locks conversations locks them in the order of (app, id), after making those that are missing in the same
//! order: transactions that cross can only wait for each other, not block each other. Duplicates that another instance
//! commits meanwhile show as a violated unique index; the caller repeats the transaction, which then sees them.

use super::group;
use crate::{
    error::{Error, Result},
    item::Item,
    rules,
    store::{Position, accepted, no_group, rejected},
};
use abi::v1::{HistoryVisibility, Role, SaveOutcome, SaveResult, group_change};
use sqlx::{Connection as _, PgConnection};
use std::collections::{BTreeSet, HashMap};

/// Stores a run of messages. `$1`, `$2`: the conversations, in order; `$3` to `$6`: the messages, with the place of their
/// conversation in those; `$7`: nothing is stored unless all conversations exist. One row for each that could be placed.
///
/// Only conversations are locked, so only they are read as they are after a wait; known ids are read as they were before.
const MESSAGES: &str = "
    WITH locked AS MATERIALIZED (
      SELECT wanted.place, found.key, found.head, found.countable
      FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (app, id, place)
      LEFT JOIN LATERAL (
        SELECT c.key, c.head, c.countable FROM conversations c
        WHERE c.app = wanted.app AND c.id = wanted.id AND (c.head > 0 OR starts_with(c.id, 'd:'))
        FOR NO KEY UPDATE
      ) found ON true
    ), heads AS MATERIALIZED (
      SELECT array_agg(key ORDER BY place) AS keys, array_agg(head ORDER BY place) AS heads,
        array_agg(countable ORDER BY place) AS countables, count(key) = count(*) AS complete
      FROM locked
    ), placed AS MATERIALIZED (
      SELECT m.nr, m.message_id, m.payload, m.sent_at_ms, heads.keys[m.place] AS key, heads.heads[m.place] AS head,
        heads.countables[m.place] AS base, known.seq AS known_seq, known.countable AS known_countable
      FROM heads CROSS JOIN unnest($3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[])
        WITH ORDINALITY AS m (place, message_id, payload, sent_at_ms, nr)
      LEFT JOIN LATERAL (
        SELECT e.seq, e.countable FROM entries e
        WHERE e.conversation = heads.keys[m.place] AND e.message_id = m.message_id LIMIT 1
      ) known ON true
      WHERE heads.complete OR NOT $7
    ), fresh AS MATERIALIZED (
      SELECT nr, key, message_id, payload, sent_at_ms, head + row_number() OVER numbered AS seq,
        base + row_number() OVER numbered AS countable
      FROM placed WHERE key IS NOT NULL AND known_seq IS NULL
      WINDOW numbered AS (PARTITION BY key ORDER BY nr)
    ), raised AS (
      UPDATE conversations c
      SET head = last.seq, countable = last.countable, last_sent_at_ms = last.sent_at_ms
      FROM (SELECT DISTINCT ON (key) key, seq, countable, sent_at_ms FROM fresh ORDER BY key, seq DESC) last
      WHERE c.key = last.key
    ), stored AS (
      INSERT INTO entries (conversation, seq, countable, message_id, payload)
      SELECT key, seq, countable, message_id, payload FROM fresh
    )
    SELECT nr, seq, countable, true FROM fresh
    UNION ALL
    SELECT nr, known_seq, known_countable, false FROM placed WHERE known_seq IS NOT NULL";

/// A row of [`MESSAGES`]: which message, its numbers, and whether it was stored now.
type Row = (i64, i64, i64, bool);

/// Stores a batch: one attempt.
pub(super) async fn save(
    conn: &mut PgConnection,
    items: &[Item],
    max_members: usize,
) -> Result<Vec<SaveResult>> {
    if items.iter().all(|item| item.change.is_none()) {
        let results = messages(&mut *conn, items, true).await?;
        if results.len() == items.len() {
            return results.into_iter().collect::<Option<_>>().ok_or(Error::Damaged("the answer of a save"));
        }
    }
    let mut tx = conn.begin().await?;
    let begun = begin_conversations(&mut tx, items).await?;
    lock(&mut tx, items).await?;
    let mut results = Vec::with_capacity(items.len());
    for run in items.chunk_by(|a, b| a.change.is_none() && b.change.is_none()) {
        match &run[0].change {
            Some(change) => results.push(group::save(&mut tx, &run[0], change, max_members).await?),
            None => {
                let saved = messages(&mut tx, run, false).await?;
                results
                    .extend(saved.into_iter().map(|result| result.unwrap_or_else(|| rejected(no_group()))));
            }
        }
    }
    // Groups whose beginning was refused.
    sqlx::query("DELETE FROM conversations WHERE key = ANY($1) AND head = 0")
        .bind(begun)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(results)
}

/// Stores a run of messages. `None` for those to conversations that don't exist; with `all_or_nothing` an empty list if
/// there is any such.
async fn messages(
    conn: &mut PgConnection,
    items: &[Item],
    all_or_nothing: bool,
) -> Result<Vec<Option<SaveResult>>> {
    let (apps, ids, places) = conversations(items);
    // An id that comes twice in a run takes part once.
    let mut firsts: HashMap<(i64, [u8; 16]), usize> = HashMap::with_capacity(items.len());
    let mut sent = Vec::with_capacity(items.len());
    let mut which = Vec::with_capacity(items.len());
    for (item, place) in items.iter().zip(&places) {
        let next = sent.len();
        let nr = *firsts.entry((*place, item.id)).or_insert(next);
        if nr == next {
            sent.push((item, *place));
        }
        which.push(nr);
    }
    let rows: Vec<Row> = sqlx::query_as(MESSAGES)
        .bind(apps)
        .bind(ids)
        .bind(sent.iter().map(|(_, place)| *place).collect::<Vec<_>>())
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
    for (nr, seq, countable, is_new) in rows {
        let place = usize::try_from(nr - 1).map_err(|_| Error::Damaged("the answer of a save"))?;
        *found.get_mut(place).ok_or(Error::Damaged("the answer of a save"))? =
            Some((Position { seq, countable }, is_new));
    }
    let mut results = Vec::with_capacity(items.len());
    for nr in which {
        results.push(found[nr].as_mut().map(|(position, is_new)| {
            // Whoever comes later with the same id is a duplicate.
            let stored = std::mem::take(is_new);
            let outcome = if stored { SaveOutcome::Stored } else { SaveOutcome::Duplicate };
            accepted(outcome, *position, None)
        }));
    }
    Ok(results)
}

/// The conversations of a batch in the order in which they are locked, and for each entry its place among them, from 1.
fn conversations(items: &[Item]) -> (Vec<&str>, Vec<&str>, Vec<i64>) {
    let ordered: BTreeSet<_> = items.iter().map(|item| (item.app(), item.conversation())).collect();
    let places: HashMap<_, i64> = ordered.iter().copied().zip(1..).collect();
    let place = |item: &Item| places[&(item.app(), item.conversation())];
    let places = items.iter().map(place).collect();
    let (apps, ids) = ordered.into_iter().unzip();
    (apps, ids, places)
}

/// Makes the conversations that a batch may begin, and returns the keys of those that are new.
async fn begin_conversations(conn: &mut PgConnection, items: &[Item]) -> Result<Vec<i64>> {
    let begins = |item: &&Item| match &item.change {
        None => item.is_direct(),
        Some(change) => {
            !item.is_direct() && matches!(change.change.change, Some(group_change::Change::Created(_)))
        }
    };
    let wanted: BTreeSet<_> =
        items.iter().filter(begins).map(|item| (item.app(), item.conversation())).collect();
    let (apps, ids): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    let begun: Vec<(i64, String, String)> = sqlx::query_as(
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
    for (key, app, id) in &begun {
        // Groups get their members with their first entry.
        let direct = abi::ids::Conversation::parse(id)?;
        for (place, user) in direct.direct_members().enumerate() {
            keys.push(*key);
            apps.push(app.as_str());
            users.push(user);
            ids.push(id.as_str());
            joined.push(rules::joined_order(1, place));
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
    Ok(begun.into_iter().map(|(key, ..)| key).collect())
}

/// Locks all conversations of a batch, so that what follows can take them in any order.
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
