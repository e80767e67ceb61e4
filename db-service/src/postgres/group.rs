//! Group changes, one at a time, within a transaction that has locked their conversations.

use super::read;
use crate::{
    error::{Error, Result},
    item::{Change, Item},
    rules::{self, Effect, Limits, Proposal},
    statements as sql,
    store::{Decision, EntrySeqs, accepted, not_a_group, rejected, request_id_conflict},
};
use abi::v1::{HistoryVisibility, Role, SaveOutcome, SaveResult};
use sqlx::{Connection as _, PgConnection};
use std::collections::HashSet;

/// A conversation's row.
#[derive(Clone, Copy)]
struct Conversation {
    key: i64,
    /// The last entry. Both are 0 before the first one.
    last: EntrySeqs,
}

/// Stores a group change, or returns its rejection.
pub(super) async fn save(
    conn: &mut PgConnection,
    item: &Item,
    change: &Change,
    limits: Limits,
) -> Result<SaveResult> {
    let conversation = load(conn, item).await?;
    let effect = match decide(conn, item, change, conversation, limits).await? {
        Decision::Duplicate(seqs) => {
            let group = read::group(conn, item.app(), item.conversation()).await?;
            return Ok(accepted(SaveOutcome::Duplicate, seqs, group));
        }
        Decision::Refused(error) => return Ok(rejected(error)),
        Decision::Allowed(effect) => effect,
    };
    let Conversation { key, last } =
        conversation.ok_or(Error::Corrupt("a change of a missing group was allowed"))?;
    let next = EntrySeqs { seq: last.seq + 1, ..last };
    sqlx::query(sql::INSERT_ENTRY)
        .bind(key)
        .bind(next.seq)
        .bind(next.countable)
        .bind(item.id.as_slice())
        .bind(item.payload.as_slice())
        .execute(&mut *conn)
        .await?;
    sqlx::query(
        "UPDATE conversations SET head = $2, last_sent_at_ms = $3, members_version = members_version + 1
         WHERE key = $1",
    )
    .bind(key)
    .bind(next.seq)
    .bind(item.sent_at_ms)
    .execute(&mut *conn)
    .await?;
    apply(conn, item, key, next, effect).await?;
    let group = read::group(conn, item.app(), item.conversation()).await?;
    Ok(accepted(SaveOutcome::Stored, next, group))
}

/// Whether [`save`] would accept the group change now. Returns its result if it is stored already.
///
/// All statements read one snapshot. If the change were stored between two of them, the rules could refuse it because of its own
/// effect.
pub(super) async fn check(
    conn: &mut PgConnection,
    item: &Item,
    limits: Limits,
) -> Result<Option<SaveResult>> {
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let checked = check_in_snapshot(&mut tx, item, limits).await;
    tx.commit().await?;
    checked
}

async fn check_in_snapshot(
    conn: &mut PgConnection,
    item: &Item,
    limits: Limits,
) -> Result<Option<SaveResult>> {
    let change = item.change.as_ref().ok_or(Error::Corrupt("a message was checked as a group change"))?;
    let conversation = load(conn, item).await?;
    let seqs = match decide(conn, item, change, conversation, limits).await? {
        Decision::Refused(error) => return Err(error.into()),
        Decision::Allowed(_) => return Ok(None),
        Decision::Duplicate(seqs) => seqs,
    };
    let payload: Vec<u8> = sqlx::query_scalar(sql::ENTRY_PAYLOAD)
        .bind(conversation.map(|conversation| conversation.key))
        .bind(seqs.seq)
        .fetch_one(&mut *conn)
        .await?;
    if !change.is_in(&payload)? {
        return Err(request_id_conflict().into());
    }
    let group = read::group(conn, item.app(), item.conversation()).await?;
    Ok(Some(accepted(SaveOutcome::Duplicate, seqs, group)))
}

async fn load(conn: &mut PgConnection, item: &Item) -> Result<Option<Conversation>> {
    let found: Option<(i64, i64, i64, i64)> = sqlx::query_as(sql::CONVERSATION)
        .bind(item.app())
        .bind(item.conversation())
        .fetch_optional(conn)
        .await?;
    Ok(found.map(|(key, seq, countable, _)| Conversation { key, last: EntrySeqs { seq, countable } }))
}

async fn decide(
    conn: &mut PgConnection,
    item: &Item,
    change: &Change,
    conversation: Option<Conversation>,
    limits: Limits,
) -> Result<Decision> {
    if item.is_direct() {
        return Ok(Decision::Refused(not_a_group()));
    }
    // This transaction has inserted the rows of new groups. Those have no entry yet.
    let existing = conversation.filter(|conversation| conversation.last.seq > 0);
    let mut group = None;
    if let Some(Conversation { key, .. }) = existing {
        let stored: Option<(i64, i64)> = sqlx::query_as(sql::ENTRY_SEQS)
            .bind(key)
            .bind(item.id.as_slice())
            .fetch_optional(&mut *conn)
            .await?;
        if let Some((seq, countable)) = stored {
            return Ok(Decision::Duplicate(EntrySeqs { seq, countable }));
        }
        group = read::group(conn, item.app(), item.conversation()).await?;
    }
    let proposed = change.change.change.as_ref();
    let proposal = Proposal {
        sender: &change.sender,
        change: proposed,
        seq: existing.map_or(1, |conversation| conversation.last.seq + 1),
        accounts: accounts(conn, item.app(), limits.users_to_look_up(proposed)).await?,
    };
    let decision = rules::decide(group.as_ref(), &proposal, limits);
    Ok(decision.map_or_else(Decision::Refused, Decision::Allowed))
}

/// The subset of `users` that has an account.
async fn accounts(conn: &mut PgConnection, app: &str, users: HashSet<&str>) -> Result<HashSet<String>> {
    if users.is_empty() {
        return Ok(HashSet::new());
    }
    let found: Vec<String> =
        sqlx::query_scalar("SELECT user_id FROM users WHERE app = $1 AND user_id = ANY($2)")
            .bind(app)
            .bind(users.into_iter().collect::<Vec<_>>())
            .fetch_all(conn)
            .await?;
    Ok(found.into_iter().collect())
}

async fn apply(
    conn: &mut PgConnection,
    item: &Item,
    key: i64,
    seqs: EntrySeqs,
    effect: Effect,
) -> Result<()> {
    let (app, id) = (item.app(), item.conversation());
    if let Some((name, history_all)) = effect.created {
        let history = if history_all { HistoryVisibility::All } else { HistoryVisibility::FromJoin };
        sqlx::query("UPDATE conversations SET name = $2, history = $3 WHERE key = $1")
            .bind(key)
            .bind(name)
            .bind(i32::from(history))
            .execute(&mut *conn)
            .await?;
    }
    if !effect.removed.is_empty() {
        sqlx::query("DELETE FROM members WHERE app = $1 AND id = $2 AND user_id = ANY($3)")
            .bind(app)
            .bind(id)
            .bind(effect.removed)
            .execute(&mut *conn)
            .await?;
    }
    if let Some(user) = effect.promoted {
        sqlx::query(sql::UPDATE_ROLE)
            .bind(i32::from(Role::Owner))
            .bind(app)
            .bind(user)
            .bind(id)
            .execute(&mut *conn)
            .await?;
    }
    if effect.added.is_empty() {
        return Ok(());
    }
    let indexes = 0..effect.added.len();
    // Entries from before a member joined do not count as unread.
    sqlx::query(
        "INSERT INTO members (app, user_id, id, conversation, role, visible_from, read_seq, read_countable, joined)
         SELECT $1, user_id, $2, $3, role, visible_from, $4, $5, joined
         FROM unnest($6::text[], $7::integer[], $8::bigint[], $9::bigint[])
           AS new (user_id, role, visible_from, joined)",
    )
    .bind(app)
    .bind(id)
    .bind(key)
    .bind(seqs.seq - 1)
    .bind(seqs.countable)
    .bind(effect.added.iter().map(|member| member.user.as_str()).collect::<Vec<_>>())
    .bind(effect.added.iter().map(|member| i32::from(member.role)).collect::<Vec<_>>())
    .bind(effect.added.iter().map(|member| member.visible_from).collect::<Vec<_>>())
    .bind(indexes.map(|index| rules::join_order(seqs.seq, index)).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}
