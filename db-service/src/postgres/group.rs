//! Changes of groups, one by one, in a transaction that holds their conversations.

use super::read;
use crate::{
    error::{Error, Result},
    item::{Change, Item},
    rules::{self, Effect},
    store::{Decision, Position, accepted, no_change, other_change, rejected},
};
use abi::v1::{HistoryVisibility, Role, SaveOutcome, SaveResult};
use sqlx::{Connection as _, PgConnection};
use std::collections::HashSet;

/// Where a conversation stands.
#[derive(Clone, Copy)]
struct Head {
    key: i64,
    last: Position,
}

/// Stores a group change, or says why not.
pub(super) async fn save(
    conn: &mut PgConnection,
    item: &Item,
    change: &Change,
    max_members: usize,
) -> Result<SaveResult> {
    let head = head(conn, item).await?;
    let effect = match decide(conn, item, change, head, max_members).await? {
        Decision::Known(position) => {
            let group = read::group(conn, item.app(), item.conversation()).await?;
            return Ok(accepted(SaveOutcome::Duplicate, position, group));
        }
        Decision::Refused(fault) => return Ok(rejected(fault)),
        Decision::Allowed(effect) => effect,
    };
    let Head { key, last } = head.ok_or(Error::Damaged("a change of no group was allowed"))?;
    let next = Position { seq: last.seq + 1, countable: last.countable };
    sqlx::query(
        "INSERT INTO entries (conversation, seq, countable, message_id, payload) VALUES ($1, $2, $3, $4, $5)",
    )
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

/// Whether the change would be taken now, and where it is if it was. All looks are at one state: if the change were stored
/// between two of them, it could seem to be forbidden by its own effect.
pub(super) async fn check(
    conn: &mut PgConnection,
    item: &Item,
    max_members: usize,
) -> Result<Option<SaveResult>> {
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let stored = stored(&mut tx, item, max_members).await;
    tx.commit().await?;
    stored
}

async fn stored(conn: &mut PgConnection, item: &Item, max_members: usize) -> Result<Option<SaveResult>> {
    let change = item.change.as_ref().ok_or(Error::Damaged("a message is no group change"))?;
    let head = head(conn, item).await?;
    let position = match decide(conn, item, change, head, max_members).await? {
        Decision::Refused(fault) => return Err(fault.into()),
        Decision::Allowed(_) => return Ok(None),
        Decision::Known(position) => position,
    };
    let payload: Vec<u8> =
        sqlx::query_scalar("SELECT payload FROM entries WHERE conversation = $1 AND seq = $2")
            .bind(head.map(|head| head.key))
            .bind(position.seq)
            .fetch_one(&mut *conn)
            .await?;
    if !change.is_in(&payload)? {
        return Err(other_change().into());
    }
    let group = read::group(conn, item.app(), item.conversation()).await?;
    Ok(Some(accepted(SaveOutcome::Duplicate, position, group)))
}

async fn head(conn: &mut PgConnection, item: &Item) -> Result<Option<Head>> {
    let found: Option<(i64, i64, i64)> =
        sqlx::query_as("SELECT key, head, countable FROM conversations WHERE app = $1 AND id = $2")
            .bind(item.app())
            .bind(item.conversation())
            .fetch_optional(conn)
            .await?;
    Ok(found.map(|(key, seq, countable)| Head { key, last: Position { seq, countable } }))
}

async fn decide(
    conn: &mut PgConnection,
    item: &Item,
    change: &Change,
    head: Option<Head>,
    max_members: usize,
) -> Result<Decision> {
    if item.is_direct() {
        return Ok(Decision::Refused(no_change()));
    }
    // A group whose head is 0 was begun by this transaction.
    let existing = head.filter(|head| head.last.seq > 0);
    let mut group = None;
    if let Some(Head { key, .. }) = existing {
        let known: Option<(i64, i64)> =
            sqlx::query_as("SELECT seq, countable FROM entries WHERE conversation = $1 AND message_id = $2")
                .bind(key)
                .bind(item.id.as_slice())
                .fetch_optional(&mut *conn)
                .await?;
        if let Some((seq, countable)) = known {
            return Ok(Decision::Known(Position { seq, countable }));
        }
        group = read::group(conn, item.app(), item.conversation()).await?;
    }
    let what = change.change.change.as_ref();
    let newcomers: Vec<&str> = rules::newcomers(what, max_members).into_iter().collect();
    let mut accounts = HashSet::new();
    if !newcomers.is_empty() {
        let found: Vec<(String,)> =
            sqlx::query_as("SELECT user_id FROM users WHERE app = $1 AND user_id = ANY($2)")
                .bind(item.app())
                .bind(newcomers)
                .fetch_all(conn)
                .await?;
        accounts.extend(found.into_iter().map(|(user,)| user));
    }
    let seq = existing.map_or(1, |head| head.last.seq + 1);
    let decision = rules::decide(group.as_ref(), &change.sender, what, seq, &accounts, max_members);
    Ok(decision.map_or_else(Decision::Refused, Decision::Allowed))
}

async fn apply(
    conn: &mut PgConnection,
    item: &Item,
    key: i64,
    position: Position,
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
        sqlx::query("UPDATE members SET role = $4 WHERE app = $1 AND user_id = $2 AND id = $3")
            .bind(app)
            .bind(user)
            .bind(id)
            .bind(i32::from(Role::Owner))
            .execute(&mut *conn)
            .await?;
    }
    if effect.added.is_empty() {
        return Ok(());
    }
    let places = 0..effect.added.len();
    // What was said before one joined is not unread.
    sqlx::query(
        "INSERT INTO members (app, user_id, id, conversation, role, visible_from, read_seq, read_countable, joined)
         SELECT $1, user_id, $2, $3, role, visible_from, $4, $5, joined
         FROM unnest($6::text[], $7::integer[], $8::bigint[], $9::bigint[])
           AS new (user_id, role, visible_from, joined)",
    )
    .bind(app)
    .bind(id)
    .bind(key)
    .bind(position.seq - 1)
    .bind(position.countable)
    .bind(effect.added.iter().map(|member| member.user.as_str()).collect::<Vec<_>>())
    .bind(effect.added.iter().map(|member| i32::from(member.role)).collect::<Vec<_>>())
    .bind(effect.added.iter().map(|member| member.visible_from).collect::<Vec<_>>())
    .bind(places.map(|place| rules::joined_order(position.seq, place)).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}
