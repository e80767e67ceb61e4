//! Reading and filling a whole schema of PostgreSQL: one snapshot, or one transaction.

mod rows;

use super::{accounts, schema};
use crate::{
    error::{Error, Result},
    generation,
    item::number,
    statements as sql,
    transfer::channel::{RecordReceiver, RecordSender, Summary},
};
use abi::{
    config::Db,
    v1::{
        ExportConversation, ExportEntry, ExportMember, ExportSession, SigningKey, User, export_record::Record,
    },
};
use prost::bytes::Bytes;
use rows::Rows;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, postgres::PgRow, raw_sql};
use std::collections::VecDeque;

/// Rows per fetch from a cursor.
const FETCH: usize = 1_000;

/// Forces plans that read each table by its keys. Other plans would sort a whole table before they return the first row.
const PLANS: &str =
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off;
    SET LOCAL enable_sort = off; SET LOCAL jit = off;";

/// Members of all conversations, in the order of an export. The first column is the key of the conversation.
const MEMBERS: &str =
    "SELECT c.key, m.user_id, m.role, m.visible_from, m.read_seq, m.read_countable, m.joined
    FROM conversations c JOIN members m ON m.conversation = c.key ORDER BY c.app, c.id, m.joined, m.user_id";
/// Entries of all conversations, in the order of an export. The first column is the key of the conversation.
const ENTRIES: &str = "SELECT c.key, e.seq, e.countable, e.message_id, e.payload
    FROM conversations c JOIN entries e ON e.conversation = c.key ORDER BY c.app, c.id, e.seq";

/// A connection without the timeouts for statements.
async fn connect(db: &Db) -> Result<PgConnection> {
    let settings = [("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")];
    Ok(PgConnection::connect_with(&super::options(db)?.options(settings)).await?)
}

/// Sends a snapshot of the data.
pub(crate) async fn read(db: &Db, mut sender: RecordSender) -> Result<()> {
    let mut conn = connect(db).await?;
    raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut conn).await?;
    schema::check_version(&mut conn).await?;
    raw_sql(PLANS).execute(&mut conn).await?;
    let generation: i64 = sqlx::query_scalar(sql::GENERATION).fetch_one(&mut conn).await?;
    sender.begin(generation::from_column(generation));
    read_accounts(&mut conn, &mut sender).await?;
    read_conversations(&mut conn, &mut sender).await?;
    sender.end();
    sender.send().await
}

async fn read_accounts(conn: &mut PgConnection, sender: &mut RecordSender) -> Result<()> {
    let mut keys = Cursor::declare("all_keys", sql::EXPORT_SIGNING_KEYS, conn).await?;
    while let Some(row) = keys.next(conn).await? {
        let key = SigningKey { id: row.try_get(0)?, secret: bytes(&row, 1)? };
        send(sender, Record::SigningKey(key)).await?;
    }
    let mut users = Cursor::declare("all_users", sql::EXPORT_USERS, conn).await?;
    while let Some(row) = users.next(conn).await? {
        let user = User { app: row.try_get(0)?, user: row.try_get(1)?, password_hash: row.try_get(2)? };
        send(sender, Record::User(user)).await?;
    }
    let mut sessions = Cursor::declare("all_sessions", sql::EXPORT_SESSIONS, conn).await?;
    while let Some(row) = sessions.next(conn).await? {
        let session = ExportSession {
            session: Some(accounts::session_from_row(&row)?),
            refresh_hash: bytes(&row, 4)?,
            previous_hash: bytes(&row, 5)?,
            number: row.try_get(6)?,
        };
        send(sender, Record::Session(session)).await?;
    }
    Ok(())
}

async fn read_conversations(conn: &mut PgConnection, sender: &mut RecordSender) -> Result<()> {
    let mut conversations = Cursor::declare("all_conversations", sql::EXPORT_CONVERSATIONS, conn).await?;
    let mut members = Cursor::declare("all_members", MEMBERS, conn).await?;
    let mut entries = Cursor::declare("all_entries", ENTRIES, conn).await?;
    while let Some(row) = conversations.next(conn).await? {
        let key: i64 = row.try_get(0)?;
        send(sender, conversation(&row)?).await?;
        while let Some(row) = members.next_of(key, conn).await? {
            send(sender, member(&row)?).await?;
        }
        while let Some(row) = entries.next_of(key, conn).await? {
            send(sender, entry(&row)?).await?;
        }
    }
    if members.next(conn).await?.is_some() || entries.next(conn).await?.is_some() {
        return Err(Error::Corrupt("members or entries belong to no conversation"));
    }
    Ok(())
}

fn conversation(row: &PgRow) -> Result<Record> {
    Ok(Record::Conversation(ExportConversation {
        app: row.try_get(1)?,
        id: row.try_get(2)?,
        head: number(row.try_get(3)?),
        countable: number(row.try_get(4)?),
        members_version: row.try_get(5)?,
        name: row.try_get(6)?,
        history: row.try_get(7)?,
        last_sent_at_ms: row.try_get(8)?,
    }))
}

fn member(row: &PgRow) -> Result<Record> {
    Ok(Record::Member(ExportMember {
        user: row.try_get(1)?,
        role: row.try_get(2)?,
        visible_from: number(row.try_get(3)?),
        read_seq: number(row.try_get(4)?),
        read_countable: number(row.try_get(5)?),
        joined: row.try_get(6)?,
    }))
}

fn entry(row: &PgRow) -> Result<Record> {
    Ok(Record::Entry(ExportEntry {
        seq: number(row.try_get(1)?),
        countable: number(row.try_get(2)?),
        message_id: bytes(row, 3)?,
        payload: bytes(row, 4)?,
    }))
}

async fn send(sender: &mut RecordSender, record: Record) -> Result<()> {
    if sender.add(record) { sender.send().await } else { Ok(()) }
}

/// The bytes of a column.
fn bytes(row: &PgRow, column: usize) -> sqlx::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.try_get(column)?))
}

/// A cursor of the transaction. It fetches [`FETCH`] rows at a time.
struct Cursor {
    name: &'static str,
    rows: VecDeque<PgRow>,
    ended: bool,
}

impl Cursor {
    async fn declare(name: &'static str, select: &str, conn: &mut PgConnection) -> Result<Self> {
        let declare = AssertSqlSafe(format!("DECLARE {name} NO SCROLL CURSOR FOR {select}"));
        raw_sql(declare).execute(conn).await?;
        Ok(Self { name, rows: VecDeque::new(), ended: false })
    }

    async fn fetch(&mut self, conn: &mut PgConnection) -> Result<()> {
        if self.rows.is_empty() && !self.ended {
            let fetch = format!("FETCH FORWARD {FETCH} FROM {}", self.name);
            self.rows = sqlx::query(AssertSqlSafe(fetch)).fetch_all(conn).await?.into();
            self.ended = self.rows.len() < FETCH;
        }
        Ok(())
    }

    async fn next(&mut self, conn: &mut PgConnection) -> Result<Option<PgRow>> {
        self.fetch(conn).await?;
        Ok(self.rows.pop_front())
    }

    /// The next row if its first column is this key.
    async fn next_of(&mut self, key: i64, conn: &mut PgConnection) -> Result<Option<PgRow>> {
        self.fetch(conn).await?;
        let Some(row) = self.rows.front() else { return Ok(None) };
        Ok(if row.try_get::<i64, _>(0)? == key { self.rows.pop_front() } else { None })
    }
}

/// Fills a schema that has no data. Creates the schema if it is missing.
pub(crate) async fn write(db: &Db, mut receiver: RecordReceiver) -> Result<Summary> {
    let mut conn = connect(db).await?;
    schema::migrate(&mut conn, &db.schema).await?;
    let mut tx = conn.begin().await?;
    // Block all writers until the commit, which makes the data visible.
    raw_sql("LOCK TABLE generation, conversations, entries, members, users, sessions, signing_keys IN EXCLUSIVE MODE")
        .execute(&mut *tx)
        .await?;
    check_empty(&mut tx, &db.schema).await?;
    let mut rows = Rows::default();
    while let Some(batch) = receiver.next().await? {
        for record in batch {
            if let Record::Begin(begin) = &record {
                update_generation(&mut tx, i64::from(begin.generation)).await?;
            }
            rows.add(record);
        }
        rows.insert(&mut tx).await?;
    }
    sqlx::query("SELECT setval(pg_get_serial_sequence('conversations', 'key'), $1)")
        .bind(rows.last_conversation().max(1))
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(receiver.summary())
}

async fn check_empty(conn: &mut PgConnection, schema: &str) -> Result<()> {
    for table in ["signing_keys", "users", "sessions", "conversations"] {
        let select = AssertSqlSafe(format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT 1) AS found"));
        let count: i64 = sqlx::query_scalar(select).fetch_one(&mut *conn).await?;
        if count > 0 {
            let place = format!("the schema {schema} of PostgreSQL");
            return Err(Error::NotEmpty { place, found: format!("its table {table} has rows") });
        }
    }
    Ok(())
}

async fn update_generation(conn: &mut PgConnection, previous: i64) -> Result<()> {
    let update = sqlx::query(sql::UPDATE_GENERATION);
    update.bind(generation::next(previous)).bind(previous).execute(conn).await?;
    Ok(())
}

/// Begins a new generation: the data are from a backup, and devices may have seen later entries.
pub(crate) async fn begin_generation(db: &Db) -> Result<()> {
    let mut conn = connect(db).await?;
    if !schema::exists(&mut conn).await? {
        return Err(Error::NoData);
    }
    // The backup may be that of an older release.
    schema::migrate(&mut conn, &db.schema).await?;
    let mut tx = conn.begin().await?;
    let previous: i64 =
        sqlx::query_scalar("SELECT now FROM generation FOR UPDATE").fetch_one(&mut *tx).await?;
    update_generation(&mut tx, previous).await?;
    sqlx::query(sql::UPDATE_KEPT).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
