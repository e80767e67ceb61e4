//! Collects records as columns and inserts them with one statement per table.

use crate::{error::Result, item::column};
use abi::v1::{
    ExportConversation, ExportEntry, ExportMember, ExportSession, Session, SigningKey, User,
    export_record::Record,
};
use prost::bytes::Bytes;
use sqlx::PgConnection;
use std::mem::take;

/// Rows that were not inserted yet, and the keys that were assigned so far.
#[derive(Default)]
pub(super) struct Rows {
    last_slot: i32,
    last_conversation: i64,
    keys: SigningKeys,
    users: Users,
    sessions: Sessions,
    conversations: Conversations,
    members: Members,
    entries: Entries,
}

impl Rows {
    /// Key of the last conversation.
    pub(super) fn last_conversation(&self) -> i64 {
        self.last_conversation
    }

    /// Adds a record. Members and entries belong to the last conversation.
    pub(super) fn add(&mut self, record: Record) {
        match record {
            Record::Begin(_) | Record::End(_) => {}
            Record::SigningKey(key) => {
                self.last_slot += 1;
                self.keys.add(self.last_slot, key);
            }
            Record::User(user) => self.users.add(user),
            Record::Session(session) => self.sessions.add(session),
            Record::Conversation(conversation) => {
                self.last_conversation += 1;
                self.conversations.add(self.last_conversation, conversation);
            }
            Record::Member(member) => self.members.add(self.last_conversation, member),
            Record::Entry(entry) => self.entries.add(self.last_conversation, entry),
        }
    }

    /// Inserts the collected rows.
    pub(super) async fn insert(&mut self, conn: &mut PgConnection) -> Result<()> {
        take(&mut self.keys).insert(conn).await?;
        take(&mut self.users).insert(conn).await?;
        take(&mut self.sessions).insert(conn).await?;
        take(&mut self.conversations).insert(conn).await?;
        take(&mut self.members).insert(conn).await?;
        take(&mut self.entries).insert(conn).await
    }
}

#[derive(Default)]
struct SigningKeys {
    slot: Vec<i32>,
    id: Vec<String>,
    secret: Vec<Bytes>,
}

impl SigningKeys {
    fn add(&mut self, slot: i32, key: SigningKey) {
        self.slot.push(slot);
        self.id.push(key.id);
        self.secret.push(key.secret);
    }

    async fn insert(self, conn: &mut PgConnection) -> Result<()> {
        if self.slot.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO signing_keys (slot, id, secret)
             SELECT * FROM unnest($1::integer[], $2::text[], $3::bytea[])",
        )
        .bind(self.slot)
        .bind(self.id)
        .bind(slices(&self.secret))
        .execute(conn)
        .await?;
        Ok(())
    }
}

#[derive(Default)]
struct Users {
    app: Vec<String>,
    user: Vec<String>,
    password_hash: Vec<String>,
}

impl Users {
    fn add(&mut self, user: User) {
        self.app.push(user.app);
        self.user.push(user.user);
        self.password_hash.push(user.password_hash);
    }

    async fn insert(self, conn: &mut PgConnection) -> Result<()> {
        if self.app.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO users (app, user_id, password_hash)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[])",
        )
        .bind(self.app)
        .bind(self.user)
        .bind(self.password_hash)
        .execute(conn)
        .await?;
        Ok(())
    }
}

#[derive(Default)]
struct Sessions {
    id: Vec<String>,
    app: Vec<String>,
    user: Vec<String>,
    device: Vec<String>,
    refresh_hash: Vec<Bytes>,
    previous_hash: Vec<Bytes>,
    number: Vec<i64>,
}

impl Sessions {
    fn add(&mut self, record: ExportSession) {
        let Session { session, app, user, device, .. } = record.session.unwrap_or_default();
        self.id.push(session);
        self.app.push(app);
        self.user.push(user);
        self.device.push(device);
        self.refresh_hash.push(record.refresh_hash);
        self.previous_hash.push(record.previous_hash);
        self.number.push(record.number);
    }

    async fn insert(self, conn: &mut PgConnection) -> Result<()> {
        if self.id.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO sessions (id, app, user_id, device, refresh_hash, previous_hash, refresh_number)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bigint[])",
        )
        .bind(self.id)
        .bind(self.app)
        .bind(self.user)
        .bind(self.device)
        .bind(slices(&self.refresh_hash))
        .bind(slices(&self.previous_hash))
        .bind(self.number)
        .execute(conn)
        .await?;
        Ok(())
    }
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

impl Conversations {
    fn add(&mut self, key: i64, conversation: ExportConversation) {
        self.key.push(key);
        self.app.push(conversation.app);
        self.id.push(conversation.id);
        self.head.push(column(conversation.head));
        self.countable.push(column(conversation.countable));
        self.members_version.push(conversation.members_version);
        self.name.push(conversation.name);
        self.history.push(conversation.history);
        self.last_sent_at_ms.push(conversation.last_sent_at_ms);
    }

    async fn insert(self, conn: &mut PgConnection) -> Result<()> {
        if self.key.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO conversations
               (key, app, id, head, countable, members_version, name, history, last_sent_at_ms, kept)
             OVERRIDING SYSTEM VALUE
             SELECT key, app, id, head, countable, version, name, history, at, head
             FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
               $8::integer[], $9::bigint[]) AS new (key, app, id, head, countable, version, name, history, at)",
        )
        .bind(self.key)
        .bind(self.app)
        .bind(self.id)
        .bind(self.head)
        .bind(self.countable)
        .bind(self.members_version)
        .bind(self.name)
        .bind(self.history)
        .bind(self.last_sent_at_ms)
        .execute(conn)
        .await?;
        Ok(())
    }
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

impl Members {
    fn add(&mut self, conversation: i64, member: ExportMember) {
        self.conversation.push(conversation);
        self.user.push(member.user);
        self.role.push(member.role);
        self.visible_from.push(column(member.visible_from));
        self.read_seq.push(column(member.read_seq));
        self.read_countable.push(column(member.read_countable));
        self.joined.push(member.joined);
    }

    async fn insert(self, conn: &mut PgConnection) -> Result<()> {
        if self.conversation.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO members
               (app, user_id, id, conversation, role, visible_from, read_seq, read_countable, joined)
             SELECT c.app, new.user_id, c.id, c.key, new.role, new.visible_from, new.read_seq, new.read_countable,
               new.joined
             FROM unnest($1::bigint[], $2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::bigint[],
               $7::bigint[]) AS new (key, user_id, role, visible_from, read_seq, read_countable, joined)
             JOIN conversations c ON c.key = new.key",
        )
        .bind(self.conversation)
        .bind(self.user)
        .bind(self.role)
        .bind(self.visible_from)
        .bind(self.read_seq)
        .bind(self.read_countable)
        .bind(self.joined)
        .execute(conn)
        .await?;
        Ok(())
    }
}

#[derive(Default)]
struct Entries {
    conversation: Vec<i64>,
    seq: Vec<i64>,
    countable: Vec<i64>,
    message_id: Vec<Bytes>,
    payload: Vec<Bytes>,
}

impl Entries {
    fn add(&mut self, conversation: i64, entry: ExportEntry) {
        self.conversation.push(conversation);
        self.seq.push(column(entry.seq));
        self.countable.push(column(entry.countable));
        self.message_id.push(entry.message_id);
        self.payload.push(entry.payload);
    }

    async fn insert(self, conn: &mut PgConnection) -> Result<()> {
        if self.conversation.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO entries (conversation, seq, countable, message_id, payload)
             SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[], $5::bytea[])",
        )
        .bind(self.conversation)
        .bind(self.seq)
        .bind(self.countable)
        .bind(slices(&self.message_id))
        .bind(slices(&self.payload))
        .execute(conn)
        .await?;
        Ok(())
    }
}

fn slices(bytes: &[Bytes]) -> Vec<&[u8]> {
    bytes.iter().map(AsRef::as_ref).collect()
}
