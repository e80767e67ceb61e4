//! The SQLite file: tables and statements. Only the log thread uses it, except through [`Db::open_to_read`].
//!
//! The primary key of a record is one integer: the id of its partition, then its offset. So appends go to the
//! end of one tree, and reading or trimming a partition is a range.

use super::headers;
use crate::error::Error;
use crate::record::{Headers, Record, TopicPartition};
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use std::path::Path;
use std::sync::Arc;

const VERSION: i64 = 1;
const OFFSET_BITS: u32 = 48;

const SCHEMA: &str = "
    CREATE TABLE partition (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL, UNIQUE (topic, number));
    CREATE TABLE record (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, key BLOB NOT NULL, payload BLOB NOT NULL, headers BLOB);
    CREATE TABLE committed (consumer TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
        PRIMARY KEY (consumer, partition)) WITHOUT ROWID;
    CREATE TABLE probe (id INTEGER PRIMARY KEY, filler BLOB);
";

/// The range of primary keys of a partition from offset `from` to before offset `to`.
fn ids(partition: i64, from: i64, to: i64) -> (i64, i64) {
    let base = partition << OFFSET_BITS;
    let limit = 1 << OFFSET_BITS;
    (base | from.clamp(0, limit - 1), base + to.clamp(0, limit))
}

fn offset(id: i64) -> i64 {
    id & ((1 << OFFSET_BITS) - 1)
}

fn sqlite(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::Sqlite { action, source }
}

pub(super) struct Db {
    connection: Connection,
}

impl Db {
    /// Opens the file, or creates it.
    pub(super) fn open(path: &Path, max_file_bytes: Option<u64>) -> Result<Self, Error> {
        let connection = Connection::open(path).map_err(sqlite("open the file"))?;
        let prepare = || -> rusqlite::Result<i64> {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            // A commit returns after the data is on the disk. Acknowledgements rely on it.
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
            connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
            connection.pragma_update(None, "cache_size", -16_384)?;
            if let Some(bytes) = max_file_bytes {
                let page_bytes: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
                let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
                connection.pragma_update(None, "max_page_count", (bytes / page_bytes.max(1)).max(1))?;
            }
            connection.set_prepared_statement_cache_capacity(32);
            connection.pragma_query_value(None, "user_version", |row| row.get(0))
        };
        match prepare().map_err(sqlite("prepare the file"))? {
            VERSION => {}
            0 => connection
                .execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT"))
                .map_err(sqlite("create the tables"))?,
            found => return Err(Error::Version { path: path.to_owned(), found, known: VERSION }),
        }
        Ok(Self { connection })
    }

    /// A second, read-only connection.
    pub(super) fn open_to_read(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(sqlite("open the file"))?;
        Ok(Self { connection })
    }

    /// The ids of a topic's partitions, by number. Creates `partitions` of them if the topic is new.
    pub(super) fn topic(&self, topic: &str, partitions: u32) -> Result<Vec<i64>, Error> {
        let known = self.partitions(topic)?;
        if !known.is_empty() {
            return Ok(known);
        }
        let insert = || -> rusqlite::Result<()> {
            for number in 0..partitions.max(1) {
                self.connection
                    .execute("INSERT INTO partition (topic, number) VALUES (?, ?)", params![topic, number])?;
            }
            Ok(())
        };
        self.begin()?;
        match insert().map_err(sqlite("create a topic")).and_then(|()| self.commit()) {
            Ok(()) => self.partitions(topic),
            Err(error) => {
                self.rollback();
                Err(error)
            }
        }
    }

    /// The ids of a topic's partitions, by number; empty if there is no such topic.
    pub(super) fn partitions(&self, topic: &str) -> Result<Vec<i64>, Error> {
        let query = || -> rusqlite::Result<Vec<i64>> {
            let sql = "SELECT id FROM partition WHERE topic = ? ORDER BY number";
            self.connection.prepare(sql)?.query_map([topic], |row| row.get(0))?.collect()
        };
        query().map_err(sqlite("read the topics"))
    }

    /// The first stored offset and the next offset to be written.
    pub(super) fn bounds(&self, partition: i64) -> Result<(i64, i64), Error> {
        let (from, to) = ids(partition, 0, i64::MAX);
        let sql = "SELECT (SELECT min(id) FROM record WHERE id >= ?1 AND id < ?2),
                          (SELECT max(id) FROM record WHERE id >= ?1 AND id < ?2)";
        let (first, last): (Option<i64>, Option<i64>) = self
            .connection
            .query_row(sql, [from, to], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(sqlite("read the bounds of a partition"))?;
        Ok((first.map_or(0, offset), last.map_or(0, |id| offset(id) + 1)))
    }

    /// The committed offset of each group in a partition.
    pub(super) fn committed(&self, partition: i64) -> Result<Vec<(Arc<str>, i64)>, Error> {
        let query = || -> rusqlite::Result<Vec<(Arc<str>, i64)>> {
            let sql = "SELECT consumer, next FROM committed WHERE partition = ?";
            let mut statement = self.connection.prepare(sql)?;
            let rows =
                statement.query_map([partition], |row| Ok((row.get::<_, String>(0)?.into(), row.get(1)?)))?;
            rows.collect()
        };
        query().map_err(sqlite("read committed offsets"))
    }

    pub(super) fn begin(&self) -> Result<(), Error> {
        self.run("BEGIN IMMEDIATE").map_err(sqlite("begin"))
    }

    pub(super) fn commit(&self) -> Result<(), Error> {
        self.run("COMMIT").map_err(sqlite("commit"))
    }

    /// Rolls the open transaction back, unless SQLite has done so already.
    pub(super) fn rollback(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.run("ROLLBACK")
        {
            tracing::error!(%error, "cannot roll back the log's transaction");
        }
    }

    fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// Writes records in the open transaction.
    pub(super) fn insert<'a>(
        &self,
        at: i64,
        records: impl Iterator<Item = (i64, i64, &'a Bytes, &'a Bytes, &'a Headers)>,
    ) -> Result<(), Error> {
        let insert = || -> rusqlite::Result<()> {
            let sql = "INSERT INTO record (id, at, key, payload, headers) VALUES (?, ?, ?, ?, ?)";
            let mut statement = self.connection.prepare_cached(sql)?;
            for (partition, offset, key, payload, headers) in records {
                let id = ids(partition, offset, offset).0;
                statement.execute(params![id, at, &key[..], &payload[..], headers::encode(headers)])?;
            }
            Ok(())
        };
        insert().map_err(sqlite("write records"))
    }

    /// Writes the offset of a group in the open transaction. An offset never decreases.
    pub(super) fn set_committed(&self, group: &str, partition: i64, next: i64) -> Result<(), Error> {
        let sql = "INSERT INTO committed (consumer, partition, next) VALUES (?, ?, ?)
                   ON CONFLICT DO UPDATE SET next = max(next, excluded.next)";
        let mut statement = self.connection.prepare_cached(sql).map_err(sqlite("write an offset"))?;
        statement.execute(params![group, partition, next]).map(drop).map_err(sqlite("write an offset"))
    }

    /// Deletes all offsets of a group.
    pub(super) fn delete_group(&self, group: &str) -> Result<(), Error> {
        let sql = "DELETE FROM committed WHERE consumer = ?";
        self.connection.execute(sql, [group]).map(drop).map_err(sqlite("delete a group"))
    }

    /// Removes records of a partition, from offset `from` to before offset `to`, in the open transaction.
    pub(super) fn remove(&self, partition: i64, from: i64, to: i64) -> Result<(), Error> {
        let (from, to) = ids(partition, from, to);
        let remove = || -> rusqlite::Result<()> {
            let sql = "DELETE FROM record WHERE id >= ? AND id < ?";
            self.connection.prepare_cached(sql)?.execute([from, to]).map(drop)
        };
        remove().map_err(sqlite("trim"))
    }

    /// Up to `limit` records of a partition, starting at offset `from`.
    pub(super) fn read(
        &self,
        (partition, name): (i64, &TopicPartition),
        from: i64,
        limit: usize,
    ) -> Result<Vec<Record>, Error> {
        let read = || -> rusqlite::Result<Vec<Record>> {
            let (from, to) = ids(partition, from, i64::MAX);
            let sql = "SELECT id, at, key, payload, headers FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?";
            let mut statement = self.connection.prepare_cached(sql)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            statement.query_map([from, to, limit], |row| record(row, name))?.collect()
        };
        read().map_err(sqlite("read records"))
    }

    /// The first offset of a partition whose record has a time of `ms` or later. Scans from the first record.
    pub(super) fn first_at(&self, partition: i64, ms: i64) -> Result<Option<i64>, Error> {
        let (from, to) = ids(partition, 0, i64::MAX);
        let sql = "SELECT id FROM record WHERE id >= ? AND id < ? AND at >= ? ORDER BY id LIMIT 1";
        let id = self.connection.query_row(sql, [from, to, ms], |row| row.get(0)).optional();
        Ok(id.map_err(sqlite("look up a time"))?.map(offset))
    }

    /// Writes a copy of the current state to a new file.
    pub(super) fn copy(&self, to: &Path) -> Result<(), Error> {
        let copied = self.connection.execute("VACUUM INTO ?", [to.to_string_lossy()]);
        copied.map(drop).map_err(sqlite("copy the file"))
    }

    /// Checks that the disk works: writes and deletes about the size of a few records.
    pub(super) fn probe(&self) -> Result<(), Error> {
        self.begin()?;
        let write = || -> rusqlite::Result<()> {
            self.run("INSERT INTO probe (id, filler) VALUES (1, zeroblob(16384))")?;
            self.run("DELETE FROM probe")
        };
        let result = write().map_err(sqlite("probe the disk")).and_then(|()| self.commit());
        self.rollback();
        result
    }

    /// The committed offset of a group in a partition.
    pub(super) fn committed_by(&self, group: &str, partition: i64) -> Result<Option<i64>, Error> {
        let sql = "SELECT next FROM committed WHERE consumer = ? AND partition = ?";
        self.connection
            .query_row(sql, params![group, partition], |row| row.get(0))
            .optional()
            .map_err(sqlite("read a committed offset"))
    }
}

fn record(row: &Row<'_>, partition: &TopicPartition) -> rusqlite::Result<Record> {
    let blob = |index: usize| -> rusqlite::Result<Bytes> {
        Ok(Bytes::copy_from_slice(row.get_ref(index)?.as_blob()?))
    };
    let headers = match row.get_ref(4)?.as_blob_or_null()? {
        Some(blob) => headers::decode(blob).ok_or_else(|| {
            rusqlite::Error::InvalidColumnType(4, "headers".into(), rusqlite::types::Type::Blob)
        })?,
        None => Vec::new(),
    };
    Ok(Record {
        topic: Arc::clone(&partition.topic),
        partition: partition.partition,
        offset: offset(row.get(0)?),
        key: blob(2)?,
        payload: blob(3)?,
        headers,
        timestamp_ms: row.get(1)?,
    })
}
