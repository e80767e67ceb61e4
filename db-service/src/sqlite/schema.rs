//! Connections: their pragmas, and the migration of the schema.

use crate::{
    error::{Error, Result},
    generation, statements as sql,
};
use rusqlite::{Connection, OpenFlags};
use std::{path::Path, time::Duration};

/// In order. The version of the schema is the number of applied migrations. Append only.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_begin.sql"),
    include_str!("../../migrations/sqlite/0002_generation.sql"),
    include_str!("../../migrations/sqlite/0003_user_id.sql"),
    include_str!("../../migrations/sqlite/0004_sessions.sql"),
];

/// Prepared statements cached per connection: more than there are.
const STATEMENT_CACHE: usize = 64;

/// How long a connection waits for a lock that another process holds, such as a backup or a shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The only connection that writes.
pub(super) fn open_writer(path: &Path) -> Result<Connection> {
    prepare_writer(path).map_err(|error| error.in_file(path))
}

fn prepare_writer(path: &Path) -> Result<Connection> {
    let mut conn = Connection::open(path)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // The index of message ids is written at random. A large cache and rare checkpoints write each of its pages once instead
    // of often. The checkpoint thread normally makes the checkpoints: `wal_autocheckpoint` only bounds the log when that
    // thread falls behind. `journal_size_limit` is below the size that starts a checkpoint.
    conn.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -65536;
         PRAGMA wal_autocheckpoint = 32000;
         PRAGMA journal_size_limit = 32000000;",
    )?;
    migrate(&mut conn)?;
    Ok(conn)
}

/// A new file that is filled in one transaction. It need not survive a crash: an incomplete file is deleted.
pub(super) fn open_draft(path: &Path) -> Result<Connection> {
    let mut conn = Connection::open(path)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    conn.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; PRAGMA locking_mode = EXCLUSIVE;",
    )?;
    migrate(&mut conn)?;
    Ok(conn)
}

/// Refuses data with another schema than this release's.
fn check_version(conn: &Connection) -> Result<()> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = known_version();
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(Error::TooOld { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Error::TooNew { found, known }),
    }
}

fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("there are few migrations")
}

/// A connection for checkpoints only.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// A read-only connection.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    conn.execute_batch("PRAGMA cache_size = -8192;")?;
    Ok(conn)
}

/// A read-only connection to data of this release's schema.
pub(super) fn open_current(path: &Path) -> Result<Connection> {
    let conn = open_reader(path).map_err(|error| error.in_file(path))?;
    check_version(&conn).map_err(|error| error.in_file(path))?;
    Ok(conn)
}

fn migrate(conn: &mut Connection) -> Result<()> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = known_version();
    let applied = usize::try_from(found).map_err(|_| Error::Corrupt("the version of the schema"))?;
    let missing = MIGRATIONS.get(applied..).ok_or(Error::TooNew { found, known })?;
    for migration in missing {
        tx.execute_batch(migration)?;
    }
    tx.pragma_update(None, "user_version", known)?;
    let (generation, is_copy): (i64, bool) =
        tx.query_row("SELECT now, is_copy FROM generation", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if is_copy {
        begin_generation(&tx, generation)?;
    }
    tx.commit()?;
    Ok(())
}

/// Begins a new generation: the data are from a backup, and devices may have seen later entries.
fn begin_generation(conn: &Connection, previous: i64) -> Result<()> {
    conn.execute(sql::UPDATE_GENERATION, [generation::next(previous), previous])?;
    conn.execute("UPDATE generation SET is_copy = 0", [])?;
    conn.execute(sql::UPDATE_KEPT, [])?;
    tracing::info!("the data are from a backup: a new generation begins");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_a_newer_release_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        let conn = open_writer(&path).unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        drop(conn);
        assert!(matches!(open_writer(&path), Err(Error::TooNew { found: 99, .. })));
    }

    #[test]
    fn p9_data_of_schema_2_are_migrated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        let conn = Connection::open(&path).unwrap();
        for migration in &MIGRATIONS[..2] {
            conn.execute_batch(migration).unwrap();
        }
        conn.execute_batch(
            "PRAGMA user_version = 2;
             INSERT INTO users VALUES ('app', 'alice', 'hash');
             INSERT INTO members VALUES ('app', 'alice', 'd:alice:bob', 1, 1, 1, 0, 0, 1);",
        )
        .unwrap();
        drop(conn);
        let conn = open_writer(&path).unwrap();
        check_version(&conn).unwrap();
        for table in ["users", "members"] {
            let select = format!("SELECT user_id FROM {table}");
            let user: String = conn.query_row(&select, [], |row| row.get(0)).unwrap();
            assert_eq!(user, "alice", "{table}");
        }
    }
}
