//! Groups: their members, and changes of them, one at a time, within a transaction that has locked their conversations.

use super::conversations::{append, entry_seqs, load, load_new};
use crate::{
    error::{Error, Result},
    item::Item,
    outcome::{
        Decision, EntrySeqs, accepted_in, is_same_change, not_a_group, rejected, rejected_before,
        request_id_conflict,
    },
    rules::{self, Effect, Group, GroupMember, Limits, Proposal},
    statements::changes as sql,
};
use abi::v1::{GroupChange, HistoryVisibility, Role, SaveOutcome, SaveResult};
use sqlx::{PgConnection, Row as _};
use std::collections::HashSet;

/// A group with its current members; `None` if it does not exist.
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

/// Stores a group change, or returns its rejection. `is_decided`: if it is not stored, it was rejected.
pub(super) async fn save(
    conn: &mut PgConnection,
    item: &Item,
    change: &GroupChange,
    is_decided: bool,
    limits: Limits,
) -> Result<SaveResult> {
    let existing = load(conn, item).await?.map(|conversation| conversation.key);
    let (effect, history_all) = match decide(conn, item, change, existing, None, limits).await? {
        Decision::Duplicate(seqs) => {
            return result(conn, item, existing, seqs, SaveOutcome::Duplicate).await;
        }
        Decision::Refused(error) => return Ok(rejected(error)),
        Decision::Allowed(..) if is_decided => return Ok(rejected(rejected_before())),
        Decision::Allowed(effect, history_all) => (effect, history_all),
    };
    let conversation =
        load_new(conn, item).await?.ok_or(Error::Corrupt("a change of a missing group was allowed"))?;
    let (key, next) = (conversation.key, conversation.next());
    append(conn, key, item, next).await?;
    apply(conn, item, key, next, effect, history_all).await?;
    result(conn, item, Some(key), next, SaveOutcome::Stored).await
}

/// The result of a group change that is stored. `key`: that of the group.
async fn result(
    conn: &mut PgConnection,
    item: &Item,
    key: Option<i64>,
    seqs: EntrySeqs,
    outcome: SaveOutcome,
) -> Result<SaveResult> {
    let group = group(&mut *conn, item.app(), item.conversation()).await?;
    let removed = sqlx::query_scalar(sql::REMOVED).bind(key).bind(seqs.seq).fetch_all(conn).await?;
    Ok(accepted_in(outcome, seqs, group, removed))
}

/// Whether a group change would be saved now. Returns its result if it is stored already.
pub(super) async fn check(
    conn: &mut PgConnection,
    item: &Item,
    change: &GroupChange,
    accounts: &HashSet<String>,
    limits: Limits,
) -> Result<Option<SaveResult>> {
    let key = load(conn, item).await?.map(|conversation| conversation.key);
    let seqs = match decide(conn, item, change, key, Some(accounts), limits).await? {
        Decision::Refused(error) => return Err(error.into()),
        Decision::Allowed(..) => return Ok(None),
        Decision::Duplicate(seqs) => seqs,
    };
    let select = sqlx::query_scalar(sql::ENTRY_PAYLOAD).bind(key).bind(seqs.seq);
    if !is_same_change(change, select.fetch_one(&mut *conn).await?)? {
        return Err(request_id_conflict().into());
    }
    result(conn, item, key, seqs, SaveOutcome::Duplicate).await.map(Some)
}

/// Loads what the rules need, and asks them. `key`: that of the group, if it exists.
async fn decide(
    conn: &mut PgConnection,
    item: &Item,
    change: &GroupChange,
    key: Option<i64>,
    accounts: Option<&HashSet<String>>,
    limits: Limits,
) -> Result<Decision> {
    if item.is_direct() {
        return Ok(Decision::Refused(not_a_group()));
    }
    let mut existing = None;
    if let Some(key) = key {
        if let Some(seqs) = entry_seqs(conn, key, &item.id).await? {
            return Ok(Decision::Duplicate(seqs));
        }
        existing = group(conn, item.app(), item.conversation()).await?;
    }
    let proposal = Proposal { sender: &item.sender, change: change.change.as_ref(), accounts };
    Ok(Decision::new(rules::decide(existing.as_ref(), &proposal, limits), existing.as_ref()))
}

/// Writes the effect of a change. `seqs`: those of its entry.
async fn apply(
    conn: &mut PgConnection,
    item: &Item,
    key: i64,
    seqs: EntrySeqs,
    effect: Effect,
    history_all: bool,
) -> Result<()> {
    if effect == Effect::default() {
        return Ok(());
    }
    if let Some((name, history_all)) = &effect.created {
        let history = if *history_all { HistoryVisibility::All } else { HistoryVisibility::FromJoin };
        sqlx::query("UPDATE conversations SET name = $2, history = $3 WHERE key = $1")
            .bind(key)
            .bind(name)
            .bind(i32::from(history))
            .execute(&mut *conn)
            .await?;
    }
    if let Some(name) = &effect.renamed {
        sqlx::query(sql::RENAME).bind(name).bind(key).execute(&mut *conn).await?;
    }
    if !effect.removed.is_empty() {
        sqlx::query(
            "UPDATE members SET role = 0, visible_until = $1, left_countable = $2
             WHERE conversation = $3 AND user_id = ANY($4)",
        )
        .bind(seqs.seq)
        .bind(seqs.countable)
        .bind(key)
        .bind(&effect.removed)
        .execute(&mut *conn)
        .await?;
    }
    for (role, user) in [(Role::Owner, &effect.promoted), (Role::Member, &effect.demoted)] {
        if let Some(user) = user {
            let update = sqlx::query(sql::UPDATE_ROLE).bind(i32::from(role)).bind(key).bind(user);
            update.execute(&mut *conn).await?;
        }
    }
    add_members(conn, item.app(), key, seqs, &effect, history_all).await?;
    sqlx::query("UPDATE conversations SET members_version = members_version + 1 WHERE key = $1")
        .bind(key)
        .execute(conn)
        .await?;
    Ok(())
}

/// Adds new members and members who come back. The latter keep their read position. Unless later members see all entries, those of
/// the absence are hidden and don't count as unread; otherwise the recalled ones among them don't.
async fn add_members(
    conn: &mut PgConnection,
    app: &str,
    key: i64,
    seqs: EntrySeqs,
    effect: &Effect,
    history_all: bool,
) -> Result<()> {
    if effect.added.is_empty() {
        return Ok(());
    }
    let users: Vec<_> = effect.added.iter().map(|(user, _)| user.as_str()).collect();
    if !history_all {
        sqlx::query(
            "INSERT INTO absences (conversation, user_id, after_seq, before_seq, countable)
             SELECT conversation, user_id, visible_until, $1, $2 - left_countable FROM members
             WHERE conversation = $3 AND user_id = ANY($4) AND visible_until < $1 - 1",
        )
        .bind(seqs.seq)
        .bind(seqs.countable)
        .bind(key)
        .bind(&users)
        .execute(&mut *conn)
        .await?;
    }
    // Entries from before a member joined do not count as unread.
    sqlx::query(
        "INSERT INTO members AS old
           (conversation, app, user_id, role, visible_from, read_seq, read_countable, excluded, joined)
         SELECT $1, $2, user_id, role, $3, $4, $5, 0, joined
         FROM unnest($6::text[], $7::integer[], $8::bigint[]) AS new (user_id, role, joined)
         ON CONFLICT (conversation, user_id) DO UPDATE SET role = excluded.role, joined = excluded.joined,
           excluded = old.excluded + CASE WHEN $9 THEN $5 - old.left_countable ELSE (
             SELECT count(*) FROM entry_states s JOIN entries e ON e.conversation = s.conversation AND e.seq = s.seq
             WHERE s.conversation = $1 AND s.seq > old.visible_until AND s.recalled_seq > 0 AND e.counts) END,
           visible_until = NULL, left_countable = NULL",
    )
    .bind(key)
    .bind(app)
    .bind(if history_all { 1 } else { seqs.seq })
    .bind(seqs.seq - 1)
    .bind(seqs.countable)
    .bind(&users)
    .bind(effect.added.iter().map(|(_, role)| i32::from(*role)).collect::<Vec<_>>())
    .bind((0..users.len()).map(|index| rules::join_order(seqs.seq, index)).collect::<Vec<_>>())
    .bind(!history_all)
    .execute(conn)
    .await?;
    Ok(())
}
