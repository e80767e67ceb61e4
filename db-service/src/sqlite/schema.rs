//! Opening the file: pragmas and migrations.

use crate::{
    error::{Error, Result},
    generation,
};
use rusqlite::{Connection, OpenFlags};
use std::{path::Path, time::Duration};

/// In order; the schema's version is how many of them were applied. Only ever added to.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_begin.sql"),
    include_str!("../../migrations/sqlite/0002_generation.sql"),
];

/// Statements kept prepared by a connection: all that we have.
const STATEMENTS: usize = 64;

/// Somebody else who has the file open (a backup, a shell) is waited for that long.
const BUSY: Duration = Duration::from_secs(5);

/// The one connection that writes.
pub(super) fn open_writer(path: &Path) -> Result<Connection> {
    let mut conn = Connection::open(path)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // A big cache and rare checkpoints: the index of ids is written at random, and every page that is in memory at the
    // next checkpoint is written once instead of often. Checkpoints are made by a thread of their own; the writer makes one
    // itself only when that thread does not keep up, so that the write-ahead log stays bounded. When the log begins anew
    // its file is cut to less than what makes the next checkpoint due.
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

/// A new file that is filled in one transaction and then used or thrown away, so that nothing of it has to survive a crash.
pub(super) fn open_draft(path: &Path) -> Result<Connection> {
    let mut conn = Connection::open(path)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; PRAGMA locking_mode = EXCLUSIVE;",
    )?;
    migrate(&mut conn)?;
    Ok(conn)
}

/// Refuses data whose schema is not that of this release.
pub(super) fn check_version(conn: &Connection) -> Result<()> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = known();
    match found.cmp(&known) {
        std::cmp::Ordering::Less => Err(Error::TooOld { found, known }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Error::TooNew { found, known }),
    }
}

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).expect("a handful of migrations")
}

/// A connection that makes checkpoints and nothing else.
pub(super) fn open_checkpointer(path: &Path) -> Result<Connection> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(BUSY)?;
    Ok(conn)
}

/// A connection that reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.execute_batch("PRAGMA cache_size = -8192;")?;
    Ok(conn)
}

fn migrate(conn: &mut Connection) -> Result<()> {
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = known();
    let applied = usize::try_from(found).map_err(|_| Error::Damaged("the schema's version"))?;
    let missing = MIGRATIONS.get(applied..).ok_or(Error::TooNew { found, known })?;
    for migration in missing {
        tx.execute_batch(migration)?;
    }
    tx.pragma_update(None, "user_version", known)?;
    let (now, is_copy): (i64, bool) =
        tx.query_row("SELECT now, is_copy FROM generation", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if is_copy {
        begin_generation(&tx, now)?;
    }
    tx.commit()?;
    Ok(())
}

/// These data are from a backup: the numbers of their entries may have gone further before.
fn begin_generation(conn: &Connection, before: i64) -> Result<()> {
    conn.execute(
        "UPDATE generation SET now = ?, before = ?, is_copy = 0",
        [generation::next(before), before],
    )?;
    conn.execute("UPDATE conversations SET kept = head", [])?;
    tracing::info!("the data are from a backup; a new generation begins");
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
}
