//! Saving: one statement for a batch of messages to existing conversations, a transaction of several statements otherwise.
//!
//! To prevent deadlocks, every transaction first locks the position of its partition of the log, then creates missing conversations
//! in the order of (app, id), and then locks all conversations in that order.
//!
//! Duplicates are rare, and a lookup for each message is a sixth of the cost of a save. So messages are stored without one. A
//! duplicate then violates a unique index, and the caller retries. The retry and all saves of the next seconds look for duplicates.

use super::{changes, conversations, duplicates::Duplicates, groups, positions};
use crate::{
    error::{Error, Result},
    item::{Change, EntryChange, Item},
    outcome::{EntrySeqs, accepted, group_not_found, mark_redelivered, rejected, rejected_before},
    position::Batch,
    rules::{Limits, outsider},
    statements::positions::raise,
};
use abi::v1::{GroupChange, SaveOutcome, SaveResult};
use sqlx::{Connection as _, PgConnection};
use std::collections::{HashMap, HashSet};

/// Stores messages, and entries of other kinds that change nothing. Parameters: apps and ids of the conversations, in lock order
/// (`$1`, `$2`); for each message the index of its conversation in these lists, from 1, its id, payload, time, sender, kind, whether
/// it is countable, the id of the entry that it refers to, and whether the conversation is direct (`$3` to `$11`); whether to store
/// nothing if any conversation is missing, or if the part of the log does not begin at the position of the store (`$12`); whether
/// entries may be stored (`$13`); the topic and the partition of the log, and the first and next offset of the part of it (`$14` to
/// `$17`), which only count with `$12`; whether to look for duplicates (`$18`). Returns one row per message whose conversation
/// exists; `conversation_seq` is 0 if the sender is not a member, or if the entry is not stored and may not be.
///
/// An entry of a sender who is not a member is looked for in any case: it may have been stored before the sender left.
///
/// With `$12`, the statement first locks the position of the partition. If another instance has saved the same part in the meantime,
/// it stores nothing, because its snapshot is older.
///
/// PostgreSQL rereads only locked rows after it has waited for the lock. So the heads are current, but everything else is looked up
/// in the snapshot from before the wait. Only the next statement sees what was committed during the wait.
const MESSAGES: &str = concat!(
    "WITH position AS MATERIALIZED (
      SELECT next_offset FROM log_positions WHERE $12 AND topic = $14 AND partition = $15 FOR NO KEY UPDATE
    ), locked AS MATERIALIZED (
      SELECT wanted.index, found.key, found.head, found.countable
      FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (app, id, index)
      LEFT JOIN LATERAL (
        SELECT c.key, c.head, c.countable FROM conversations c
        WHERE c.app = wanted.app AND c.id = wanted.id AND (c.head > 0 OR starts_with(c.id, 'd:'))
        FOR NO KEY UPDATE
      ) found ON true
      WHERE coalesce((SELECT next_offset FROM position), $16) = $16
    ), heads AS MATERIALIZED (
      SELECT array_agg(key ORDER BY index) AS keys, array_agg(head ORDER BY index) AS heads,
        array_agg(countable ORDER BY index) AS countables, count(key) = cardinality($1) AS complete
      FROM locked
    ), messages AS MATERIALIZED (
      SELECT m.*, heads.keys[m.index] AS key, heads.heads[m.index] AS head, heads.countables[m.index] AS base,
        stored.seq AS stored_seq, stored.countable AS stored_countable, stored.target_seq AS stored_target,
        target.seq AS target_seq, $13 AND (m.is_direct OR coalesce(member.role, 0) > 0) AS may_send
      FROM heads CROSS JOIN unnest($3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[], $7::text[], $8::text[],
          $9::boolean[], $10::bytea[], $11::boolean[])
        WITH ORDINALITY AS m (index, message_id, payload, sent_at_ms, sender, kind, counts, refers_to, is_direct, nr)
      LEFT JOIN LATERAL (
        SELECT e.seq FROM entries e
        WHERE e.conversation = heads.keys[m.index] AND e.message_id = m.refers_to LIMIT 1
      ) target ON true
      LEFT JOIN LATERAL (
        SELECT mm.role FROM members mm
        WHERE NOT m.is_direct AND mm.conversation = heads.keys[m.index] AND mm.user_id = m.sender LIMIT 1
      ) member ON true
      LEFT JOIN LATERAL (
        SELECT e.seq, e.countable, e.target_seq FROM entries e
        WHERE ($18 OR NOT m.is_direct AND coalesce(member.role, 0) = 0)
          AND e.conversation = heads.keys[m.index] AND e.message_id = m.message_id LIMIT 1
      ) stored ON true
      WHERE heads.complete OR NOT $12
    ), fresh AS MATERIALIZED (
      SELECT nr, key, message_id, payload, sent_at_ms, sender, kind, counts, target_seq,
        head + row_number() OVER numbered AS seq, base + count(*) FILTER (WHERE counts) OVER numbered AS countable
      FROM messages WHERE key IS NOT NULL AND stored_seq IS NULL AND may_send
      WINDOW numbered AS (PARTITION BY key ORDER BY nr)
    ), updated AS (
      UPDATE conversations c
      SET head = last.seq, countable = last.countable, shown = last.seq, last_sent_at_ms = last.sent_at_ms
      FROM (SELECT DISTINCT ON (key) key, seq, countable, sent_at_ms FROM fresh ORDER BY key, seq DESC) last
      WHERE c.key = last.key
    ), inserted AS (
      INSERT INTO entries
        (conversation, seq, countable, sent_at_ms, target_seq, counts, message_id, sender, kind, payload)
      SELECT key, seq, countable, sent_at_ms, target_seq, counts, message_id, sender, kind, payload FROM fresh
    ), excluded AS (
      UPDATE members m SET excluded = m.excluded + own.entries
      FROM (SELECT key, sender, count(*) AS entries FROM fresh WHERE counts GROUP BY key, sender) own
      WHERE m.conversation = own.key AND m.user_id = own.sender
    ), raised AS (
      INSERT INTO log_positions (topic, partition, first_offset, next_offset)
      SELECT $14, $15, $16, $17 FROM heads WHERE $12 AND complete ",
    raise!(),
    ")
    SELECT nr, seq, countable, coalesce(target_seq, 0), true FROM fresh
    UNION ALL
    SELECT nr, coalesce(stored_seq, 0), coalesce(stored_countable, 0), coalesce(stored_target, 0), false
    FROM messages WHERE key IS NOT NULL AND (stored_seq IS NOT NULL OR NOT may_send)"
);

/// A row of [`MESSAGES`]: the number of the message, from 1; its sequence numbers and that of its target; whether it was stored by
/// this statement.
type Row = (i64, i64, i64, i64, bool);

/// The error if the rows of [`MESSAGES`] do not match the messages.
const UNEXPECTED_ROWS: Error = Error::Corrupt("a save returned unexpected rows");

/// A part of a batch that is stored by itself.
enum Step<'a> {
    /// Entries that change nothing. None of them refers to another one.
    Plain(&'a [Item]),
    /// An entry that changes another one.
    EntryChange(&'a Item, &'a EntryChange),
    /// An entry that changes the group.
    GroupChange(&'a Item, &'a GroupChange),
    /// An entry whose sender is not in the direct conversation.
    Stranger,
}

/// How a statement saves plain entries.
#[derive(Clone, Copy)]
enum Mode<'a> {
    /// By itself: stores all entries of the part and raises the position, or does nothing.
    Alone { batch: &'a Batch, find_duplicates: bool },
    /// In a transaction that raises the position. `is_decided`: an entry that is not stored was rejected.
    Within { is_decided: bool },
}

/// Saves a part of the log. One attempt.
pub(super) async fn save(
    conn: &mut PgConnection,
    batch: &Batch,
    limits: Limits,
    duplicates: &Duplicates,
) -> Result<Vec<SaveResult>> {
    let saved = attempt(conn, batch, limits, duplicates.are_expected()).await;
    duplicates.observe(&saved);
    saved
}

/// Saves a part of the log. Without `find_duplicates`, a duplicate may be a conflict.
async fn attempt(
    conn: &mut PgConnection,
    batch: &Batch,
    limits: Limits,
    find_duplicates: bool,
) -> Result<Vec<SaveResult>> {
    if let [Step::Plain(all)] = steps(&batch.items)[..] {
        let results = save_plain(&mut *conn, all, Mode::Alone { batch, find_duplicates }).await?;
        if results.len() == all.len() {
            return results.into_iter().collect::<Option<_>>().ok_or(UNEXPECTED_ROWS);
        }
    }
    let mut tx = conn.begin().await?;
    let decided = positions::lock(&mut tx, &batch.partition).await?;
    let decided = batch.decided(decided)?;
    positions::raise(&mut tx, batch).await?;
    let known = batch.known(&decided);
    let (earlier, later) = (&batch.items[..known.start], &batch.items[known.end..]);
    let created = conversations::create_missing(&mut tx, earlier.iter().chain(later)).await?;
    conversations::lock(&mut tx, &batch.items).await?;
    let mut results = Vec::with_capacity(batch.items.len());
    for (part, is_decided) in [(earlier, false), (&batch.items[known.clone()], true), (later, false)] {
        for step in steps(part) {
            save_step(&mut tx, step, is_decided, limits, &mut results).await?;
        }
    }
    mark_redelivered(&mut results[known]);
    conversations::delete_empty(&mut tx, created).await?;
    tx.commit().await?;
    Ok(results)
}

/// Saves a step within a transaction, and adds its results. `is_decided`: its entries that are not stored were rejected.
async fn save_step(
    conn: &mut PgConnection,
    step: Step<'_>,
    is_decided: bool,
    limits: Limits,
    results: &mut Vec<SaveResult>,
) -> Result<()> {
    match step {
        Step::Plain(run) => {
            let saved = save_plain(conn, run, Mode::Within { is_decided }).await?;
            let missing = || rejected(group_not_found());
            results.extend(saved.into_iter().map(|saved| saved.unwrap_or_else(missing)));
        }
        Step::EntryChange(item, change) => {
            results.push(changes::save(conn, item, change, is_decided).await?);
        }
        Step::GroupChange(item, change) => {
            results.push(groups::save(conn, item, change, is_decided, limits).await?);
        }
        Step::Stranger => results.push(rejected(outsider())),
    }
    Ok(())
}

/// Splits entries. A statement does not find entries that it stores itself, so a step ends before an entry that refers to one of
/// its entries.
fn steps(items: &[Item]) -> Vec<Step<'_>> {
    let has_references = items.iter().any(|item| item.refers_to.is_some());
    let mut in_run = HashSet::new();
    let mut steps = Vec::new();
    let mut begin = 0;
    for (index, item) in items.iter().enumerate() {
        let step = match &item.change {
            Some(Change::Entry(change)) => Some(Step::EntryChange(item, change)),
            Some(Change::Group(change)) => Some(Step::GroupChange(item, change)),
            None => item.is_stranger.then_some(Step::Stranger),
        };
        let refers_to_run = item.refers_to.is_some_and(|target| in_run.contains(&(&item.scope, target)));
        if step.is_some() || refers_to_run {
            if begin < index {
                steps.push(Step::Plain(&items[begin..index]));
            }
            in_run.clear();
            begin = index + usize::from(step.is_some());
        }
        steps.extend(step);
        if has_references && begin <= index {
            in_run.insert((&item.scope, item.id));
        }
    }
    if begin < items.len() {
        steps.push(Step::Plain(&items[begin..]));
    }
    steps
}

/// Stores entries that change nothing. The result is `None` for one whose conversation does not exist. With [`Mode::Alone`], the
/// list is empty if there is such an entry, or if the batch does not begin at the position of the store.
async fn save_plain(
    conn: &mut PgConnection,
    items: &[Item],
    mode: Mode<'_>,
) -> Result<Vec<Option<SaveResult>>> {
    let (alone, is_decided, find_duplicates) = match mode {
        Mode::Alone { batch, find_duplicates } => (Some(batch), false, find_duplicates),
        Mode::Within { is_decided } => (None, is_decided, true),
    };
    let (apps, ids, indexes) = conversations::ordered(items);
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
        .bind(sent.iter().map(|(item, _)| &item.payload[..]).collect::<Vec<_>>())
        .bind(sent.iter().map(|(item, _)| item.sent_at_ms).collect::<Vec<_>>())
        .bind(sent.iter().map(|(item, _)| item.sender.as_str()).collect::<Vec<_>>())
        .bind(sent.iter().map(|(item, _)| item.kind.as_deref()).collect::<Vec<_>>())
        .bind(sent.iter().map(|(item, _)| item.counts).collect::<Vec<_>>())
        .bind(sent.iter().map(|(item, _)| item.refers_to.as_ref().map(|id| &id[..])).collect::<Vec<_>>())
        .bind(sent.iter().map(|(item, _)| item.is_direct()).collect::<Vec<_>>())
        .bind(alone.is_some())
        .bind(!is_decided)
        .bind(alone.map_or("", |batch| &batch.partition.topic))
        .bind(alone.map_or(0, |batch| batch.partition.number))
        .bind(alone.map_or(0, |batch| batch.range.start))
        .bind(alone.map_or(0, |batch| batch.range.end))
        .bind(find_duplicates)
        .fetch_all(conn)
        .await?;
    if alone.is_some() && rows.len() < sent.len() {
        return Ok(Vec::new());
    }
    let mut found = vec![None; sent.len()];
    for (number, seq, countable, target, is_new) in rows {
        let index = usize::try_from(number - 1).map_err(|_| UNEXPECTED_ROWS)?;
        *found.get_mut(index).ok_or(UNEXPECTED_ROWS)? = Some((EntrySeqs { seq, countable, target }, is_new));
    }
    Ok(results(numbers, found, is_decided))
}

/// The results of entries. `numbers`: for each entry the index of its message in `found`, which has the numbers of each message and
/// whether it is new.
fn results(
    numbers: Vec<usize>,
    mut found: Vec<Option<(EntrySeqs, bool)>>,
    is_decided: bool,
) -> Vec<Option<SaveResult>> {
    let result = |number: usize| {
        found[number].as_mut().map(|(seqs, is_new)| {
            if seqs.seq == 0 {
                return rejected(if is_decided { rejected_before() } else { outsider() });
            }
            // Later items with the same id are duplicates.
            let stored = std::mem::take(is_new);
            let outcome = if stored { SaveOutcome::Stored } else { SaveOutcome::Duplicate };
            accepted(outcome, *seqs)
        })
    };
    numbers.into_iter().map(result).collect()
}
