//! Records on their way into tables: the columns of a batch, one statement per table.

use crate::{error::Result, item::column};
use abi::v1::{Session, export_record::Record};
use prost::bytes::Bytes;
use sqlx::PgConnection;

/// Columns of rows that wait for their statement, and the keys that were given.
#[derive(Default)]
pub(super) struct Rows {
    last_key: i32,
    last_conversation: i64,
    keys: (Vec<i32>, Vec<String>, Vec<Bytes>),
    users: (Vec<String>, Vec<String>, Vec<String>),
    sessions: Sessions,
    conversations: Conversations,
    members: Members,
    entries: Entries,
}

#[derive(Default)]
struct Sessions {
    id: Vec<String>,
    app: Vec<String>,
    user: Vec<String>,
    device: Vec<String>,
    refresh_hash: Vec<Bytes>,
    previous_hash: Vec<Bytes>,
    rotated_at_ms: Vec<i64>,
}

#[derive(Default)]
struct Conversations {
    key: Vec<i64>,
    app: Vec<String>,
    id: Vec<String>,
    head: Vec<i64>,
    countable: Vec<i64>,
    members_version: Vec<i64>,
    name: Vec<String>,
    history: Vec<i32>,
    last_sent_at_ms: Vec<i64>,
}

#[derive(Default)]
struct Members {
    conversation: Vec<i64>,
    user: Vec<String>,
    role: Vec<i32>,
    visible_from: Vec<i64>,
    read_seq: Vec<i64>,
    read_countable: Vec<i64>,
    joined: Vec<i64>,
}

#[derive(Default)]
struct Entries {
    conversation: Vec<i64>,
    seq: Vec<i64>,
    countable: Vec<i64>,
    message_id: Vec<Bytes>,
    payload: Vec<Bytes>,
}

impl Rows {
    /// Key of the last conversation.
    pub(super) fn last_conversation(&self) -> i64 {
        self.last_conversation
    }

    /// Takes a record.
    pub(super) fn add(&mut self, record: Record) {
        match record {
            Record::Begin(_) | Record::End(_) => {}
            Record::SigningKey(key) => {
                self.last_key += 1;
                self.keys.0.push(self.last_key);
                self.keys.1.push(key.id);
                self.keys.2.push(key.secret);
            }
            Record::User(user) => {
                self.users.0.push(user.app);
                self.users.1.push(user.user);
                self.users.2.push(user.password_hash);
            }
            Record::Session(of) => {
                let Session { session, app, user, device, .. } = of.session.unwrap_or_default();
                let rows = &mut self.sessions;
                rows.id.push(session);
                rows.app.push(app);
                rows.user.push(user);
                rows.device.push(device);
                rows.refresh_hash.push(of.refresh_hash);
                rows.previous_hash.push(of.previous_hash);
                rows.rotated_at_ms.push(of.rotated_at_ms);
            }
            Record::Conversation(conversation) => {
                self.last_conversation += 1;
                let rows = &mut self.conversations;
                rows.key.push(self.last_conversation);
                rows.app.push(conversation.app);
                rows.id.push(conversation.id);
                rows.head.push(column(conversation.head));
                rows.countable.push(column(conversation.countable));
                rows.members_version.push(conversation.members_version);
                rows.name.push(conversation.name);
                rows.history.push(conversation.history);
                rows.last_sent_at_ms.push(conversation.last_sent_at_ms);
            }
            Record::Member(member) => {
                let rows = &mut self.members;
                rows.conversation.push(self.last_conversation);
                rows.user.push(member.user);
                rows.role.push(member.role);
                rows.visible_from.push(column(member.visible_from));
                rows.read_seq.push(column(member.read_seq));
                rows.read_countable.push(column(member.read_countable));
                rows.joined.push(member.joined);
            }
            Record::Entry(entry) => {
                let rows = &mut self.entries;
                rows.conversation.push(self.last_conversation);
                rows.seq.push(column(entry.seq));
                rows.countable.push(column(entry.countable));
                rows.message_id.push(entry.message_id);
                rows.payload.push(entry.payload);
            }
        }
    }

    /// Inserts what was taken.
    pub(super) async fn insert(&mut self, conn: &mut PgConnection) -> Result<()> {
        self.insert_accounts(conn).await?;
        let rows = std::mem::take(&mut self.conversations);
        if !rows.key.is_empty() {
            sqlx::query(
                "INSERT INTO conversations
                   (key, app, id, head, countable, members_version, name, history, last_sent_at_ms, kept)
                 OVERRIDING SYSTEM VALUE
                 SELECT key, app, id, head, countable, version, name, history, at, head
                 FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
                   $8::integer[], $9::bigint[]) AS new (key, app, id, head, countable, version, name, history, at)",
            )
            .bind(rows.key)
            .bind(rows.app)
            .bind(rows.id)
            .bind(rows.head)
            .bind(rows.countable)
            .bind(rows.members_version)
            .bind(rows.name)
            .bind(rows.history)
            .bind(rows.last_sent_at_ms)
            .execute(&mut *conn)
            .await?;
        }
        let rows = std::mem::take(&mut self.members);
        if !rows.conversation.is_empty() {
            sqlx::query(
                "INSERT INTO members
                   (app, user_id, id, conversation, role, visible_from, read_seq, read_countable, joined)
                 SELECT c.app, new.user_id, c.id, c.key, new.role, new.visible_from, new.read_seq, new.read_countable,
                   new.joined
                 FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[],
                   $7::bigint[]) AS new (key, user_id, role, visible_from, read_seq, read_countable, joined)
                 JOIN conversations c ON c.key = new.key",
            )
            .bind(rows.conversation)
            .bind(rows.user)
            .bind(rows.role)
            .bind(rows.visible_from)
            .bind(rows.read_seq)
            .bind(rows.read_countable)
            .bind(rows.joined)
            .execute(&mut *conn)
            .await?;
        }
        let rows = std::mem::take(&mut self.entries);
        if !rows.conversation.is_empty() {
            sqlx::query(
                "INSERT INTO entries (conversation, seq, countable, message_id, payload)
                 SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[])",
            )
            .bind(rows.conversation)
            .bind(rows.seq)
            .bind(rows.countable)
            .bind(slices(&rows.message_id))
            .bind(slices(&rows.payload))
            .execute(conn)
            .await?;
        }
        Ok(())
    }

    async fn insert_accounts(&mut self, conn: &mut PgConnection) -> Result<()> {
        let (slot, id, secret) = std::mem::take(&mut self.keys);
        if !slot.is_empty() {
            sqlx::query(
                "INSERT INTO signing_keys (slot, id, secret)
                 SELECT * FROM unnest($1::integer[], $2::text[], $3::bytea[])",
            )
            .bind(slot)
            .bind(id)
            .bind(slices(&secret))
            .execute(&mut *conn)
            .await?;
        }
        let (app, user, hash) = std::mem::take(&mut self.users);
        if !app.is_empty() {
            sqlx::query(
                "INSERT INTO users (app, user_id, password_hash)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::text[])",
            )
            .bind(app)
            .bind(user)
            .bind(hash)
            .execute(&mut *conn)
            .await?;
        }
        let rows = std::mem::take(&mut self.sessions);
        if !rows.id.is_empty() {
            sqlx::query(
                "INSERT INTO sessions (id, app, user_id, device, refresh_hash, previous_hash, rotated_at_ms)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bigint[])",
            )
            .bind(rows.id)
            .bind(rows.app)
            .bind(rows.user)
            .bind(rows.device)
            .bind(slices(&rows.refresh_hash))
            .bind(slices(&rows.previous_hash))
            .bind(rows.rotated_at_ms)
            .execute(conn)
            .await?;
        }
        Ok(())
    }
}

fn slices(bytes: &[Bytes]) -> Vec<&[u8]> {
    bytes.iter().map(AsRef::as_ref).collect()
}
