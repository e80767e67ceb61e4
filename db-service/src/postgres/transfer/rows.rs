//! Collects rows as columns and inserts them with one statement per table.

use crate::{
    error::{Error, Result},
    transfer::tables::{Kind, Placement, TABLES, Table},
};
use abi::v1::{ExportRow, ExportValue, export_value::Value};
use prost::bytes::Bytes;
use sqlx::{AssertSqlSafe, PgConnection};
use std::mem::take;

/// Rows that were not inserted yet, and the keys that were assigned so far.
pub(super) struct Rows {
    placement: Placement,
    /// Columns of each table.
    tables: Vec<Vec<Column>>,
}

/// The values of a column.
enum Column {
    Number(Vec<Option<i64>>),
    Small(Vec<Option<i32>>),
    Flag(Vec<Option<bool>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Bytes>>),
}

impl Default for Rows {
    fn default() -> Self {
        let columns = |table: &Table| table.all_columns().map(|(_, kind)| Column::new(kind)).collect();
        Self { placement: Placement::default(), tables: TABLES.iter().map(columns).collect() }
    }
}

impl Rows {
    /// Key of the last conversation.
    pub(super) fn last_conversation(&self) -> i64 {
        self.placement.last_key()
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The row does not fit its table.
    pub(super) fn add(&mut self, row: ExportRow) -> Result<()> {
        let (index, values) = self.placement.place(row)?;
        self.tables[index].iter_mut().zip(values).try_for_each(|(column, value)| column.push(value))
    }

    /// Inserts the collected rows.
    pub(super) async fn insert(&mut self, conn: &mut PgConnection) -> Result<()> {
        for (table, columns) in TABLES.iter().zip(&mut self.tables) {
            if columns.first().is_none_or(Column::is_empty) {
                continue;
            }
            let statement = AssertSqlSafe(insert(table));
            let mut query = sqlx::query(statement);
            for column in columns {
                query = match column {
                    Column::Number(values) => query.bind(take(values)),
                    Column::Small(values) => query.bind(take(values)),
                    Column::Flag(values) => query.bind(take(values)),
                    Column::Text(values) => query.bind(take(values)),
                    Column::Bytes(values) => query.bind(
                        take(values)
                            .iter()
                            .map(|value| value.as_ref().map(|bytes| bytes.to_vec()))
                            .collect::<Vec<_>>(),
                    ),
                };
            }
            query.execute(&mut *conn).await?;
        }
        Ok(())
    }
}

/// Inserts rows whose columns are arrays. `OVERRIDING SYSTEM VALUE` keeps the keys of conversations, which the copy assigns.
fn insert(table: &Table) -> String {
    let names: Vec<_> = table.all_columns().map(|(name, _)| name).collect();
    let arrays: Vec<_> = table
        .all_columns()
        .enumerate()
        .map(|(at, (_, kind))| format!("${}::{}[]", at + 1, sql_type(kind)))
        .collect();
    format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM unnest({})",
        table.name,
        names.join(", "),
        arrays.join(", ")
    )
}

fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "bigint",
        Kind::Small => "integer",
        Kind::Flag => "boolean",
        Kind::Text => "text",
        Kind::Bytes => "bytea",
    }
}

impl Column {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Number => Self::Number(Vec::new()),
            Kind::Small => Self::Small(Vec::new()),
            Kind::Flag => Self::Flag(Vec::new()),
            Kind::Text => Self::Text(Vec::new()),
            Kind::Bytes => Self::Bytes(Vec::new()),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Number(values) => values.is_empty(),
            Self::Small(values) => values.is_empty(),
            Self::Flag(values) => values.is_empty(),
            Self::Text(values) => values.is_empty(),
            Self::Bytes(values) => values.is_empty(),
        }
    }

    /// Adds a value. The row was checked, so its type is that of the column.
    fn push(&mut self, value: ExportValue) -> Result<()> {
        const WRONG_TYPE: Error = Error::Corrupt("a value does not fit its column");
        match (self, value.value) {
            (Self::Number(values), Some(Value::Number(number))) => values.push(Some(number)),
            (Self::Small(values), Some(Value::Number(number))) => {
                values.push(Some(i32::try_from(number).map_err(|_| WRONG_TYPE)?));
            }
            (Self::Flag(values), Some(Value::Number(number))) => values.push(Some(number != 0)),
            (Self::Text(values), Some(Value::Text(text))) => values.push(Some(text)),
            (Self::Bytes(values), Some(Value::Data(data))) => values.push(Some(data)),
            (Self::Number(values), None) => values.push(None),
            (Self::Small(values), None) => values.push(None),
            (Self::Flag(values), None) => values.push(None),
            (Self::Text(values), None) => values.push(None),
            (Self::Bytes(values), None) => values.push(None),
            _ => return Err(WRONG_TYPE),
        }
        Ok(())
    }
}
