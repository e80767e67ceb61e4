//! Reading, filling and copying a whole embedded store.

use super::{FILE, schema};
use crate::{
    error::{Error, Result},
    generation, statements as sql,
    transfer::{
        channel::{RecordReceiver, RecordSender, Summary},
        tables::{CONVERSATIONS, Placement, TABLES, Table},
    },
};
use abi::v1::{ExportRow, ExportValue, export_record::Record, export_value::Value};
use rusqlite::{
    Connection, Row, ToSql,
    types::{ToSqlOutput, ValueRef},
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Sends a snapshot of the store.
pub(crate) fn read(folder: &Path, mut sender: RecordSender) -> Result<()> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Err(Error::NoData);
    }
    let mut conn = schema::open_current(&path)?;
    let tx = conn.transaction()?;
    sender.begin(generation::from_column(tx.query_row(sql::GENERATION, [], |row| row.get(0))?));
    let (user_tables, conversation_tables) = TABLES.split_at(CONVERSATIONS);
    for (index, table) in user_tables.iter().enumerate() {
        let statement = select(table, "");
        let mut rows = tx.prepare(&statement)?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            send(&mut sender, table, index, row, 0)?;
        }
    }
    // The first column of a conversation is its key.
    let (conversations, of_conversations) =
        conversation_tables.split_first().ok_or(Error::Corrupt("there is no table of conversations"))?;
    let statement = format!(
        "SELECT key, {} FROM conversations ORDER BY {}",
        conversations.select_list(""),
        conversations.order_list("")
    );
    let mut keys = tx.prepare(&statement)?;
    let mut of_key = of_conversations
        .iter()
        .map(|table| tx.prepare(&select(table, "WHERE conversation = $1")))
        .collect::<Result<Vec<_>, _>>()?;
    let mut rows = keys.query([])?;
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        send(&mut sender, conversations, CONVERSATIONS, row, 1)?;
        for (index, (table, select)) in of_conversations.iter().zip(&mut of_key).enumerate() {
            let mut rows = select.query([key])?;
            while let Some(row) = rows.next()? {
                send(&mut sender, table, CONVERSATIONS + 1 + index, row, 0)?;
            }
        }
    }
    sender.end();
    sender.blocking_send()
}

fn select(table: &Table, condition: &str) -> String {
    format!(
        "SELECT {} FROM {} {condition} ORDER BY {}",
        table.select_list(""),
        table.name,
        table.order_list("")
    )
}

/// Sends a row. The columns of the table begin at `first`.
fn send(sender: &mut RecordSender, table: &Table, index: usize, row: &Row<'_>, first: usize) -> Result<()> {
    let mut values = Vec::new();
    for at in 0..table.kinds().count() {
        let value = match row.get_ref(first + at)? {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(Value::Number(number)),
            ValueRef::Text(text) => {
                let text = std::str::from_utf8(text).map_err(|_| Error::Corrupt("a text is not UTF-8"))?;
                Some(Value::Text(text.to_owned()))
            }
            ValueRef::Blob(data) => Some(Value::Data(data.to_vec().into())),
            ValueRef::Real(_) => return Err(Error::Corrupt("a column has a fraction")),
        };
        values.push(ExportValue { value });
    }
    let table = u32::try_from(index).map_err(|_| Error::Corrupt("there are too many tables"))?;
    if sender.add(Record::Row(ExportRow { table, values })) { sender.blocking_send() } else { Ok(()) }
}

/// Fills a folder that has no store. The file gets its final name only once all of it is on the disk.
pub(crate) fn write(folder: &Path, mut receiver: RecordReceiver) -> Result<Summary> {
    let draft = Draft::create(folder)?;
    let mut conn = schema::open_draft(&draft.path)?;
    let tx = conn.transaction()?;
    let mut inserts = TABLES.iter().map(|table| tx.prepare(&insert(table))).collect::<Result<Vec<_>, _>>()?;
    let mut placement = Placement::default();
    while let Some(batch) = receiver.blocking_next()? {
        for record in batch {
            match record {
                Record::Begin(begin) => {
                    let previous = i64::from(begin.generation);
                    tx.execute(sql::UPDATE_GENERATION, [generation::next(previous), previous])?;
                }
                Record::Row(row) => {
                    let (index, values) = placement.place(row)?;
                    inserts[index].execute(rusqlite::params_from_iter(values.iter().map(Column)))?;
                }
                Record::End(_) => {}
            }
        }
    }
    drop(inserts);
    tx.commit()?;
    conn.close().map_err(|(_, error)| error)?;
    draft.commit()?;
    Ok(receiver.summary())
}

fn insert(table: &Table) -> String {
    let names: Vec<_> = table.all_columns().map(|(name, _)| name).collect();
    let parameters: Vec<_> = (1..=names.len()).map(|number| format!("${number}")).collect();
    format!("INSERT INTO {} ({}) VALUES ({})", table.name, names.join(", "), parameters.join(", "))
}

/// A value as a parameter.
struct Column<'a>(&'a ExportValue);

impl ToSql for Column<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match &self.0.value {
            None => ValueRef::Null,
            Some(Value::Number(number)) => ValueRef::Integer(*number),
            Some(Value::Text(text)) => ValueRef::Text(text.as_bytes()),
            Some(Value::Data(data)) => ValueRef::Blob(data),
        }))
    }
}

/// Copies a snapshot of a store, which may be in use.
pub(crate) fn back_up(folder: &Path, copy: &Path) -> Result<()> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Err(Error::NoData);
    }
    let draft = Draft::create(copy)?;
    let conn = schema::open_current(&path)?;
    conn.execute("VACUUM INTO $1", [draft.path.to_string_lossy()])?;
    let conn = Connection::open(&draft.path)?;
    conn.execute("UPDATE generation SET is_copy = 1", [])?;
    conn.close().map_err(|(_, error)| error)?;
    draft.commit()
}

/// An incomplete store. Dropping it deletes the file unless it was committed.
struct Draft {
    folder: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn create(folder: &Path) -> Result<Self> {
        let unusable = |source| Error::Folder { path: folder.to_owned(), source };
        if folder.join(FILE).exists() {
            let (place, found) = (folder.display().to_string(), format!("it contains {FILE}"));
            return Err(Error::NotEmpty { place, found });
        }
        fs::create_dir_all(folder).map_err(unusable)?;
        let draft = Self { folder: folder.to_owned(), path: folder.join(FILE).with_extension("draft") };
        // A crash may have left a file.
        draft.remove();
        Ok(draft)
    }

    /// Syncs the file and gives it its final name.
    fn commit(self) -> Result<()> {
        let committed = File::open(&self.path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.path, self.folder.join(FILE)))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        committed.map_err(|source| Error::Folder { path: self.folder.clone(), source })
    }

    fn remove(&self) {
        // Usually there is no such file. If it exists and can't be deleted, opening it for writing reports the error.
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.remove();
    }
}
