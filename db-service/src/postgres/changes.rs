//! Changes of entries, one at a time, within a transaction that has locked their conversations. Also the check of any change before
//! it is logged.

use super::{
    conversations::{append, entry_seqs, load},
    groups,
};
use crate::{
    error::Result,
    item::{Change, EntryChange, Item},
    outcome::{EntryDecision, accepted, accepted_with, rejected, rejected_before},
    rules::{
        Limits,
        entries::{
            self, EntryEffect, Proposal, State, Target, decode_own_reactions, encode_own_reactions,
            no_such_entry,
        },
        outsider,
    },
    statements::changes as sql,
};
use abi::v1::{Role, SaveOutcome, SaveResult};
use sqlx::{Connection as _, PgConnection, Row as _};
use std::collections::HashSet;

/// Stores a change of an entry, or returns its rejection. `is_decided`: if it is not stored, it was rejected.
pub(super) async fn save(
    conn: &mut PgConnection,
    item: &Item,
    change: &EntryChange,
    is_decided: bool,
) -> Result<SaveResult> {
    let Some(conversation) = load(conn, item).await? else { return Ok(rejected(no_such_entry(item))) };
    let (key, mut next) = (conversation.key, conversation.next());
    let (target, effect) = match decide(conn, item, change, key, next.seq, None).await? {
        EntryDecision::Duplicate(seqs, state) => {
            return Ok(accepted_with(SaveOutcome::Duplicate, seqs, state));
        }
        EntryDecision::Refused(error) => return Ok(rejected(error)),
        EntryDecision::Allowed(..) if is_decided => return Ok(rejected(rejected_before())),
        EntryDecision::Allowed(target, effect) => (target, effect),
    };
    next.target = target.seq;
    append(conn, key, item, next).await?;
    let state = apply(conn, item, key, &target, effect).await?;
    Ok(accepted_with(SaveOutcome::Stored, next, Some(state)))
}

/// Whether [`save`](super::save::save) would accept the change now. Returns its result if it is stored already.
///
/// All statements read one snapshot. If the change were stored between two of them, the rules could refuse it because of its own
/// effect.
pub(super) async fn check(
    conn: &mut PgConnection,
    item: &Item,
    accounts: &HashSet<String>,
    limits: Limits,
) -> Result<Option<SaveResult>> {
    let mut tx = conn.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
    let checked = match &item.change {
        None => check_message(&mut tx, item).await,
        Some(Change::Group(change)) => groups::check(&mut tx, item, change, accounts, limits).await,
        Some(Change::Entry(change)) => check_in_snapshot(&mut tx, item, change, limits).await,
    };
    tx.commit().await?;
    checked
}

/// Whether a message would be accepted now.
async fn check_message(conn: &mut PgConnection, item: &Item) -> Result<Option<SaveResult>> {
    let Some(conversation) = load(conn, item).await? else {
        return if item.is_direct() && !item.is_stranger { Ok(None) } else { Err(outsider().into()) };
    };
    let key = conversation.key;
    if let Some(seqs) = entry_seqs(conn, key, &item.id).await? {
        return Ok(Some(accepted(SaveOutcome::Duplicate, seqs)));
    }
    let role = sqlx::query(sql::ROLE).bind(key).bind(&item.sender).fetch_optional(conn).await?;
    role.map(|_| None).ok_or_else(|| outsider().into())
}

async fn check_in_snapshot(
    conn: &mut PgConnection,
    item: &Item,
    change: &EntryChange,
    limits: Limits,
) -> Result<Option<SaveResult>> {
    let conversation = load(conn, item).await?.ok_or_else(|| no_such_entry(item))?;
    let seq = conversation.next().seq;
    match decide(conn, item, change, conversation.key, seq, Some(limits)).await? {
        EntryDecision::Refused(error) => Err(error.into()),
        EntryDecision::Allowed(..) => Ok(None),
        EntryDecision::Duplicate(seqs, state) => Ok(Some(accepted_with(SaveOutcome::Duplicate, seqs, state))),
    }
}

/// Loads what the rules need, and asks them. `seq`: the `conversation_seq` that the change would get.
async fn decide(
    conn: &mut PgConnection,
    item: &Item,
    change: &EntryChange,
    key: i64,
    seq: i64,
    windows: Option<Limits>,
) -> Result<EntryDecision> {
    if let Some(seqs) = entry_seqs(conn, key, &item.id).await? {
        let state = if seqs.target > 0 { Some(state(conn, key, seqs.target).await?) } else { None };
        return Ok(EntryDecision::Duplicate(seqs, state));
    }
    let member: Option<(i32, i64)> =
        sqlx::query_as(sql::ROLE).bind(key).bind(&item.sender).fetch_optional(&mut *conn).await?;
    let target = match (member, &item.refers_to) {
        (Some((_, visible_from)), Some(id)) => target(conn, item, key, id, visible_from).await?,
        _ => None,
    };
    let proposal = Proposal {
        sender: &item.sender,
        role: member.map(|(role, _)| Role::try_from(role).unwrap_or(Role::Member)),
        change,
        seq,
        sent_at_ms: item.sent_at_ms,
        windows,
    };
    EntryDecision::new(entries::decide(target.as_ref(), &proposal), target)
}

/// Writes the effect of a change. Returns the state of the entry after it.
async fn apply(
    conn: &mut PgConnection,
    item: &Item,
    key: i64,
    target: &Target,
    effect: EntryEffect,
) -> Result<State> {
    let state = effect.state;
    sqlx::query(sql::REPLACE_STATE)
        .bind(key)
        .bind(target.seq)
        .bind(state.changed_seq)
        .bind(i64::from(state.edits))
        .bind(state.edited_at_ms)
        .bind(state.edit_seq)
        .bind(state.recalled_seq)
        .bind(&state.recalled_by)
        .bind(state.encode_reactions())
        .execute(&mut *conn)
        .await?;
    if let Some(own) = effect.own_reactions {
        let statement = if own.is_empty() { sql::DELETE_REACTIONS } else { sql::REPLACE_REACTIONS };
        let mut query = sqlx::query(statement).bind(key).bind(target.seq).bind(&item.sender);
        if !own.is_empty() {
            query = query.bind(encode_own_reactions(&own));
        }
        query.execute(&mut *conn).await?;
    }
    if effect.is_recall && target.counts {
        let exclude = sqlx::query(sql::EXCLUDE_RECALLED).bind(key).bind(target.seq).bind(&target.sender);
        exclude.execute(conn).await?;
    }
    Ok(state)
}

/// The entry that a change refers to; `None` if it does not exist.
async fn target(
    conn: &mut PgConnection,
    item: &Item,
    key: i64,
    id: &[u8; 16],
    visible_from: i64,
) -> Result<Option<Target>> {
    let select = sqlx::query(sql::TARGET).bind(&item.sender).bind(key).bind(id.as_slice());
    let Some(row) = select.fetch_optional(&mut *conn).await? else { return Ok(None) };
    let seq: i64 = row.try_get(0)?;
    let own: Option<Vec<u8>> = sqlx::query_scalar(sql::OWN_REACTIONS)
        .bind(key)
        .bind(seq)
        .bind(&item.sender)
        .fetch_optional(&mut *conn)
        .await?;
    Ok(Some(Target {
        seq,
        sender: row.try_get(1)?,
        sent_at_ms: row.try_get(2)?,
        kind: row.try_get(3)?,
        counts: row.try_get(4)?,
        is_visible: visible_from <= seq && !row.try_get::<bool, _>(5)?,
        state: state(conn, key, seq).await?,
        own_reactions: own.map_or_else(|| Ok(Vec::new()), |own| decode_own_reactions(&own))?,
    }))
}

/// The state of an entry. That of an entry without changes is the default.
async fn state(conn: &mut PgConnection, key: i64, seq: i64) -> Result<State> {
    let select = sqlx::query(sql::STATE).bind(key).bind(seq);
    let Some(row) = select.fetch_optional(conn).await? else { return Ok(State::default()) };
    Ok(State {
        changed_seq: row.try_get(0)?,
        edits: u32::try_from(row.try_get::<i64, _>(1)?).unwrap_or(u32::MAX),
        edited_at_ms: row.try_get(2)?,
        edit_seq: row.try_get(3)?,
        recalled_seq: row.try_get(4)?,
        recalled_by: row.try_get(5)?,
        reactions: State::decode_reactions(row.try_get(6)?)?,
    })
}
