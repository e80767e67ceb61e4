//! The rows of conversations and entries, within a transaction that has locked the conversations.

use crate::{
    error::Result,
    item::{Change, Item},
    outcome::EntrySeqs,
    rules,
    statements::changes as sql,
};
use abi::v1::{GroupChange, HistoryVisibility, Role, group_change};
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap};

/// A conversation's row.
#[derive(Clone, Copy)]
pub(super) struct Conversation {
    /// Its key.
    pub(super) key: i64,
    head: i64,
    countable: i64,
}

impl Conversation {
    /// The numbers of the next entry, which is not countable.
    pub(super) fn next(&self) -> EntrySeqs {
        EntrySeqs { seq: self.head + 1, countable: self.countable, target: 0 }
    }
}

/// The apps and ids of the conversations of a batch, in lock order, and for each item the index of its conversation, from 1.
pub(super) fn ordered(items: &[Item]) -> (Vec<&str>, Vec<&str>, Vec<i64>) {
    let ordered: BTreeSet<_> = items.iter().map(|item| (item.app(), item.conversation())).collect();
    let indexes: HashMap<_, i64> = ordered.iter().copied().zip(1..).collect();
    let index = |item: &Item| indexes[&(item.app(), item.conversation())];
    let indexes = items.iter().map(index).collect();
    let (apps, ids) = ordered.into_iter().unzip();
    (apps, ids, indexes)
}

/// Creates the missing conversations of entries: those of direct messages and those of new groups. Returns their keys.
pub(super) async fn create_missing(
    conn: &mut PgConnection,
    items: impl Iterator<Item = &Item>,
) -> Result<Vec<i64>> {
    let may_create = |item: &&Item| match &item.change {
        None => item.is_direct() && !item.is_stranger,
        Some(Change::Entry(_)) => false,
        Some(Change::Group(GroupChange { change })) => {
            !item.is_direct() && matches!(change, Some(group_change::Change::Created(_)))
        }
    };
    let wanted: BTreeSet<_> =
        items.filter(may_create).map(|item| (item.app(), item.conversation())).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (apps, ids): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    let created: Vec<(i64, String, String)> = sqlx::query_as(
        "INSERT INTO conversations
           (app, id, head, countable, shown, last_sent_at_ms, members_version, name, history)
         SELECT app, id, 0, 0, 0, 0, 0, '', $3 FROM unnest($1::text[], $2::text[]) AS wanted (app, id)
         ON CONFLICT DO NOTHING RETURNING key, app, id",
    )
    .bind(apps)
    .bind(ids)
    .bind(i32::from(HistoryVisibility::All))
    .fetch_all(&mut *conn)
    .await?;
    let (mut keys, mut apps, mut users, mut joined) = (vec![], vec![], vec![], vec![]);
    for (key, app, id) in &created {
        // The first entry of a group adds its members, so the list is empty for groups.
        let conversation = abi::ids::Conversation::parse(id)?;
        for (index, user) in conversation.direct_members().enumerate() {
            keys.push(*key);
            apps.push(app.as_str());
            users.push(user);
            joined.push(rules::join_order(1, index));
        }
    }
    sqlx::query(
        "INSERT INTO members
           (conversation, app, user_id, role, visible_from, read_seq, read_countable, excluded, joined)
         SELECT key, app, user_id, $5, 1, 0, 0, 0, joined
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) AS wanted (key, app, user_id, joined)",
    )
    .bind(keys)
    .bind(apps)
    .bind(users)
    .bind(joined)
    .bind(i32::from(Role::Member))
    .execute(conn)
    .await?;
    Ok(created.into_iter().map(|(key, ..)| key).collect())
}

/// Deletes those of the created conversations that have got no entry: groups whose creation was refused.
pub(super) async fn delete_empty(conn: &mut PgConnection, created: Vec<i64>) -> Result<()> {
    if !created.is_empty() {
        let delete = sqlx::query("DELETE FROM conversations WHERE key = ANY($1) AND head = 0");
        delete.bind(created).execute(conn).await?;
    }
    Ok(())
}

/// Locks all conversations of a batch in lock order.
pub(super) async fn lock(conn: &mut PgConnection, items: &[Item]) -> Result<()> {
    let (apps, ids, _) = ordered(items);
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

/// The conversation of an item, even without entries: this transaction has inserted the rows of new groups.
pub(super) async fn load_new(conn: &mut PgConnection, item: &Item) -> Result<Option<Conversation>> {
    let found: Option<(i64, i64, i64, i64, i64)> = sqlx::query_as(sql::CONVERSATION)
        .bind(item.app())
        .bind(item.conversation())
        .fetch_optional(conn)
        .await?;
    Ok(found.map(|(key, head, countable, ..)| Conversation { key, head, countable }))
}

/// The conversation of an item; `None` if it has no entries.
pub(super) async fn load(conn: &mut PgConnection, item: &Item) -> Result<Option<Conversation>> {
    Ok(load_new(conn, item).await?.filter(|conversation| conversation.head > 0))
}

/// The numbers of a stored entry; `None` if no entry has the message id.
pub(super) async fn entry_seqs(
    conn: &mut PgConnection,
    key: i64,
    id: &[u8; 16],
) -> Result<Option<EntrySeqs>> {
    let found: Option<(i64, i64, i64)> =
        sqlx::query_as(sql::ENTRY_SEQS).bind(key).bind(id.as_slice()).fetch_optional(conn).await?;
    Ok(found.map(|(seq, countable, target)| EntrySeqs { seq, countable, target }))
}

/// Stores an entry that is neither countable nor a duplicate, and moves the head to it.
pub(super) async fn append(conn: &mut PgConnection, key: i64, item: &Item, seqs: EntrySeqs) -> Result<()> {
    sqlx::query(sql::INSERT_ENTRY)
        .bind(key)
        .bind(seqs.seq)
        .bind(seqs.countable)
        .bind(item.sent_at_ms)
        .bind((seqs.target > 0).then_some(seqs.target))
        .bind(item.counts)
        .bind(item.id.as_slice())
        .bind(&item.sender)
        .bind(&item.kind)
        .bind(&item.payload[..])
        .execute(&mut *conn)
        .await?;
    let is_shown = !matches!(item.change, Some(Change::Entry(_)));
    sqlx::query(
        "UPDATE conversations SET head = $2, shown = CASE WHEN $3 THEN $2 ELSE shown END,
           last_sent_at_ms = CASE WHEN $3 THEN $4 ELSE last_sent_at_ms END
         WHERE key = $1",
    )
    .bind(key)
    .bind(seqs.seq)
    .bind(is_shown)
    .bind(item.sent_at_ms)
    .execute(conn)
    .await?;
    Ok(())
}
