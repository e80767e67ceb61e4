//! The data in PostgreSQL as a whole: read in one snapshot, filled in one transaction.

mod rows;

use super::{accounts, schema};
use crate::{
    error::{Error, Result},
    generation,
    item::number,
    transfer::{Feed, Intake, Summary},
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

/// Rows of each kind that are read at once.
const FETCH: usize = 1_000;

/// The plans that read each table by its keys: none of them waits for a sort of everything before its first row.
const PLANS: &str =
    "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off;
    SET LOCAL enable_sort = off; SET LOCAL jit = off;";

/// Read in the order of an export. Members and entries come with the key of their conversation, in the same order as those.
const CURSORS: &str = "
    DECLARE all_keys NO SCROLL CURSOR FOR SELECT id, secret FROM signing_keys ORDER BY slot;
    DECLARE all_users NO SCROLL CURSOR FOR SELECT app, user_id, password_hash FROM users ORDER BY app, user_id;
    DECLARE all_sessions NO SCROLL CURSOR FOR
      SELECT id, app, user_id, device, refresh_hash, previous_hash, rotated_at_ms FROM sessions ORDER BY id;
    DECLARE all_conversations NO SCROLL CURSOR FOR
      SELECT key, app, id, head, countable, members_version, name, history, last_sent_at_ms
      FROM conversations ORDER BY app, id;
    DECLARE all_members NO SCROLL CURSOR FOR
      SELECT c.key, m.user_id, m.role, m.visible_from, m.read_seq, m.read_countable, m.joined
      FROM conversations c JOIN members m ON m.conversation = c.key ORDER BY c.app, c.id, m.joined, m.user_id;
    DECLARE all_entries NO SCROLL CURSOR FOR
      SELECT c.key, e.seq, e.countable, e.message_id, e.payload
      FROM conversations c JOIN entries e ON e.conversation = c.key ORDER BY c.app, c.id, e.seq;";

/// A connection whose statements may take as long as they need.
async fn connect(db: &Db) -> Result<PgConnection> {
    let settings = [("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0")];
    Ok(PgConnection::connect_with(&super::options(db)?.options(settings)).await?)
}

/// Reads everything as it is at the beginning.
pub(crate) async fn read(db: &Db, mut feed: Feed) -> Result<()> {
    let mut conn = connect(db).await?;
    raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut conn).await?;
    schema::check_version(&mut conn).await?;
    raw_sql(PLANS).execute(&mut conn).await?;
    raw_sql(CURSORS).execute(&mut conn).await?;
    let now: i64 = sqlx::query_scalar("SELECT now FROM generation").fetch_one(&mut conn).await?;
    feed.begin(generation::contract(now));
    read_accounts(&mut conn, &mut feed).await?;
    let (mut conversations, mut members, mut entries) =
        (Cursor::of("all_conversations"), Cursor::of("all_members"), Cursor::of("all_entries"));
    while let Some(row) = conversations.next(&mut conn).await? {
        let key: i64 = row.try_get(0)?;
        let conversation = ExportConversation {
            app: row.try_get(1)?,
            id: row.try_get(2)?,
            head: number(row.try_get(3)?),
            countable: number(row.try_get(4)?),
            members_version: row.try_get(5)?,
            name: row.try_get(6)?,
            history: row.try_get(7)?,
            last_sent_at_ms: row.try_get(8)?,
        };
        pass(&mut feed, Record::Conversation(conversation)).await?;
        while let Some(row) = members.next_of(key, &mut conn).await? {
            let member = ExportMember {
                user: row.try_get(1)?,
                role: row.try_get(2)?,
                visible_from: number(row.try_get(3)?),
                read_seq: number(row.try_get(4)?),
                read_countable: number(row.try_get(5)?),
                joined: row.try_get(6)?,
            };
            pass(&mut feed, Record::Member(member)).await?;
        }
        while let Some(row) = entries.next_of(key, &mut conn).await? {
            let entry = ExportEntry {
                seq: number(row.try_get(1)?),
                countable: number(row.try_get(2)?),
                message_id: bytes(&row, 3)?,
                payload: bytes(&row, 4)?,
            };
            pass(&mut feed, Record::Entry(entry)).await?;
        }
    }
    if members.next(&mut conn).await?.is_some() || entries.next(&mut conn).await?.is_some() {
        return Err(Error::Damaged("there are members or entries of no conversation"));
    }
    feed.end();
    feed.send().await
}

async fn read_accounts(conn: &mut PgConnection, feed: &mut Feed) -> Result<()> {
    let mut keys = Cursor::of("all_keys");
    while let Some(row) = keys.next(conn).await? {
        let key = SigningKey { id: row.try_get(0)?, secret: bytes(&row, 1)? };
        pass(feed, Record::SigningKey(key)).await?;
    }
    let mut users = Cursor::of("all_users");
    while let Some(row) = users.next(conn).await? {
        let user = User { app: row.try_get(0)?, user: row.try_get(1)?, password_hash: row.try_get(2)? };
        pass(feed, Record::User(user)).await?;
    }
    let mut sessions = Cursor::of("all_sessions");
    while let Some(row) = sessions.next(conn).await? {
        let session = ExportSession {
            session: Some(accounts::session_of(&row)?),
            refresh_hash: bytes(&row, 4)?,
            previous_hash: bytes(&row, 5)?,
            rotated_at_ms: row.try_get(6)?,
        };
        pass(feed, Record::Session(session)).await?;
    }
    Ok(())
}

async fn pass(feed: &mut Feed, record: Record) -> Result<()> {
    if feed.add(record) { feed.send().await } else { Ok(()) }
}

/// The bytes of a column.
fn bytes(row: &PgRow, column: usize) -> sqlx::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.try_get(column)?))
}

/// The rows of a cursor of [`CURSORS`], in portions.
struct Cursor {
    name: &'static str,
    rows: VecDeque<PgRow>,
    ended: bool,
}

impl Cursor {
    fn of(name: &'static str) -> Self {
        Self { name, rows: VecDeque::new(), ended: false }
    }

    async fn fill(&mut self, conn: &mut PgConnection) -> Result<()> {
        if self.rows.is_empty() && !self.ended {
            let fetch = format!("FETCH FORWARD {FETCH} FROM {}", self.name);
            self.rows = sqlx::query(AssertSqlSafe(fetch)).fetch_all(conn).await?.into();
            self.ended = self.rows.len() < FETCH;
        }
        Ok(())
    }

    async fn next(&mut self, conn: &mut PgConnection) -> Result<Option<PgRow>> {
        self.fill(conn).await?;
        Ok(self.rows.pop_front())
    }

    /// The next row if it belongs to this conversation.
    async fn next_of(&mut self, key: i64, conn: &mut PgConnection) -> Result<Option<PgRow>> {
        self.fill(conn).await?;
        let Some(row) = self.rows.front() else { return Ok(None) };
        Ok(if row.try_get::<i64, _>(0)? == key { self.rows.pop_front() } else { None })
    }
}

/// Fills a schema that has no data. It is made if it is missing.
pub(crate) async fn write(db: &Db, mut intake: Intake) -> Result<Summary> {
    let mut conn = connect(db).await?;
    schema::migrate(&mut conn, &db.schema).await?;
    let mut tx = conn.begin().await?;
    // Nobody writes until this is committed, and then everybody sees all of it.
    raw_sql("LOCK TABLE generation, conversations, entries, members, users, sessions, signing_keys IN EXCLUSIVE MODE")
        .execute(&mut *tx)
        .await?;
    check_empty(&mut tx, &db.schema).await?;
    let mut rows = Rows::default();
    while let Some(batch) = intake.next().await? {
        for record in batch {
            if let Record::Begin(begin) = &record {
                set_generation(&mut tx, i64::from(begin.generation)).await?;
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
    Ok(intake.summary())
}

async fn check_empty(conn: &mut PgConnection, schema: &str) -> Result<()> {
    for table in ["signing_keys", "users", "sessions", "conversations"] {
        let select = AssertSqlSafe(format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT 1) AS found"));
        let count: i64 = sqlx::query_scalar(select).fetch_one(&mut *conn).await?;
        if count > 0 {
            let place = format!("the schema {schema} of PostgreSQL");
            return Err(Error::NotEmpty { place, what: format!("there are rows in its table {table}") });
        }
    }
    Ok(())
}

async fn set_generation(conn: &mut PgConnection, before: i64) -> Result<()> {
    let update = sqlx::query("UPDATE generation SET now = $1, before = $2");
    update.bind(generation::next(before)).bind(before).execute(conn).await?;
    Ok(())
}

/// These data are from a backup: the numbers of their entries may have gone further before.
pub(crate) async fn begin_generation(db: &Db) -> Result<()> {
    let mut conn = connect(db).await?;
    // A backup of the release before has an older schema.
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('schema_version') IS NOT NULL").fetch_one(&mut conn).await?;
    if !exists {
        return Err(Error::NoData);
    }
    schema::migrate(&mut conn, &db.schema).await?;
    let mut tx = conn.begin().await?;
    let now: i64 = sqlx::query_scalar("SELECT now FROM generation FOR UPDATE").fetch_one(&mut *tx).await?;
    set_generation(&mut tx, now).await?;
    sqlx::query("UPDATE conversations SET kept = head").execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}
