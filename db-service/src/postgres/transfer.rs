//! Reading and filling a whole schema of PostgreSQL: one snapshot, or one transaction.

mod rows;

use super::schema;
use crate::{
    error::{Error, Result},
    generation, statements as sql,
    transfer::{
        channel::{RecordReceiver, RecordSender, Summary},
        tables::{CONVERSATIONS, Kind, TABLES, Table},
    },
};
use abi::{
    config::Db,
    v1::{ExportRow, ExportValue, export_record::Record, export_value::Value},
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
    let (user_tables, conversation_tables) = TABLES.split_at(CONVERSATIONS);
    for (index, table) in user_tables.iter().enumerate() {
        let mut rows = Cursor::declare(table, &select(table), &mut conn).await?;
        while let Some(row) = rows.next(&mut conn).await? {
            send(&mut sender, table, index, &row, 0).await?;
        }
    }
    read_conversations(conversation_tables, &mut conn, &mut sender).await?;
    sender.end();
    sender.send().await
}

/// Sends each conversation with its rows of the other tables. All of them are read in the same order.
async fn read_conversations(
    tables: &'static [Table],
    conn: &mut PgConnection,
    sender: &mut RecordSender,
) -> Result<()> {
    let mut cursors = Vec::new();
    for table in tables {
        cursors.push(Cursor::declare(table, &select_of_conversations(table), conn).await?);
    }
    let (conversations, others) =
        cursors.split_first_mut().ok_or(Error::Corrupt("there is no table of conversations"))?;
    while let Some(row) = conversations.next(conn).await? {
        let key: i64 = row.try_get(0)?;
        send(sender, conversations.table, CONVERSATIONS, &row, 1).await?;
        for (index, rows) in others.iter_mut().enumerate() {
            while let Some(row) = rows.next_of(key, conn).await? {
                send(sender, rows.table, CONVERSATIONS + 1 + index, &row, 1).await?;
            }
        }
    }
    for rows in others {
        if rows.next(conn).await?.is_some() {
            return Err(Error::Corrupt("rows belong to no conversation"));
        }
    }
    Ok(())
}

fn select(table: &Table) -> String {
    format!("SELECT {} FROM {} ORDER BY {}", table.select_list(""), table.name, table.order_list(""))
}

/// Selects rows in the order of an export. The first column is the key of the conversation.
fn select_of_conversations(table: &Table) -> String {
    let (list, order) = (table.select_list("t."), table.order_list("t."));
    if table.name == TABLES[CONVERSATIONS].name {
        return format!("SELECT t.key, {list} FROM conversations t ORDER BY {order}");
    }
    let name = table.name;
    format!(
        "SELECT c.key, {list} FROM conversations c JOIN {name} t ON t.conversation = c.key ORDER BY c.app, c.id, {order}"
    )
}

/// Sends a row. The columns of the table begin at `first`.
async fn send(
    sender: &mut RecordSender,
    table: &Table,
    index: usize,
    row: &PgRow,
    first: usize,
) -> Result<()> {
    let mut values = Vec::new();
    for (at, kind) in table.kinds().enumerate() {
        values.push(ExportValue { value: value(row, first + at, kind)? });
    }
    let table = u32::try_from(index).map_err(|_| Error::Corrupt("there are too many tables"))?;
    if sender.add(Record::Row(ExportRow { table, values })) { sender.send().await } else { Ok(()) }
}

fn value(row: &PgRow, at: usize, kind: Kind) -> sqlx::Result<Option<Value>> {
    Ok(match kind {
        Kind::Number => row.try_get::<Option<i64>, _>(at)?.map(Value::Number),
        Kind::Small => row.try_get::<Option<i32>, _>(at)?.map(|number| Value::Number(number.into())),
        Kind::Flag => row.try_get::<Option<bool>, _>(at)?.map(|flag| Value::Number(flag.into())),
        Kind::Text => row.try_get::<Option<String>, _>(at)?.map(Value::Text),
        Kind::Bytes => {
            let data: Option<&[u8]> = row.try_get(at)?;
            data.map(|data| Value::Data(Bytes::copy_from_slice(data)))
        }
    })
}

/// A cursor of the transaction. It fetches [`FETCH`] rows at a time.
struct Cursor {
    table: &'static Table,
    rows: VecDeque<PgRow>,
    ended: bool,
}

impl Cursor {
    async fn declare(table: &'static Table, select: &str, conn: &mut PgConnection) -> Result<Self> {
        let declare = format!("DECLARE all_{} NO SCROLL CURSOR FOR {select}", table.name);
        raw_sql(AssertSqlSafe(declare)).execute(conn).await?;
        Ok(Self { table, rows: VecDeque::new(), ended: false })
    }

    async fn fetch(&mut self, conn: &mut PgConnection) -> Result<()> {
        if self.rows.is_empty() && !self.ended {
            let fetch = format!("FETCH FORWARD {FETCH} FROM all_{}", self.table.name);
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
    let names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
    let lock = format!("LOCK TABLE generation, {} IN EXCLUSIVE MODE", names.join(", "));
    raw_sql(AssertSqlSafe(lock)).execute(&mut *tx).await?;
    check_empty(&mut tx, &db.schema).await?;
    let mut rows = Rows::default();
    while let Some(batch) = receiver.next().await? {
        for record in batch {
            match record {
                Record::Begin(begin) => update_generation(&mut tx, i64::from(begin.generation)).await?,
                Record::Row(row) => rows.add(row)?,
                Record::End(_) => {}
            }
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
    for table in TABLES.iter().map(|table| table.name) {
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
