//! The checkpoint thread: it copies the write-ahead log into the database file, so that the writer need not wait for the disk.
//!
//! It also syncs the write-ahead log every [`POLL_INTERVAL`]. Otherwise the pages of a second would reach the disk together at
//! the next sync, and the fsync of the message log, for which every ack waits, would queue behind them.

use super::schema;
use crate::error::{Error, Result};
use rusqlite::Connection;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread::{Builder, JoinHandle},
    time::{Duration, SystemTime},
};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Size of the write-ahead log, in bytes, that starts a checkpoint: 8,000 pages, the fastest of the sizes measured.
const CHECKPOINT_BYTES: u64 = 8_000 * 4_096;
/// SQLite reuses the log from its beginning only after a checkpoint that copied all of it. Writes meanwhile prevent that.
const MAX_ATTEMPTS: usize = 8;

/// The thread. Dropping this ends it.
pub(super) struct Checkpoints {
    /// `None` only during the drop.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread. The store must exist.
    pub(super) fn start(path: &Path) -> Result<Self> {
        let conn = schema::open_checkpointer(path)?;
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let wal = PathBuf::from(wal);
        let (stop, stopped) = mpsc::channel();
        let thread = Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || run(&conn, &wal, &stopped))
            .map_err(|_| Error::Stopped)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread of the store panicked");
        }
    }
}

fn run(conn: &Connection, wal: &Path, stopped: &Receiver<()>) {
    let mut last_modified: Option<SystemTime> = None;
    while stopped.recv_timeout(POLL_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let Ok((modified, bytes)) = wal.metadata().and_then(|wal| Ok((wal.modified()?, wal.len()))) else {
            continue;
        };
        if last_modified.replace(modified) == Some(modified) {
            continue;
        }
        // The next durable commit reports a disk that keeps failing.
        if let Err(error) = File::open(wal).and_then(|wal| wal.sync_data()) {
            tracing::debug!(%error, "the write-ahead log could not be synced");
        }
        if bytes >= CHECKPOINT_BYTES
            && let Err(error) = checkpoint(conn)
        {
            tracing::warn!(%error, "the checkpoint of the store failed and will be retried");
        }
    }
}

/// Copies the log without blocking readers or the writer, until all of it is copied or the attempts are used up.
fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    for _ in 0..MAX_ATTEMPTS {
        let (pages, copied) = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        if pages == copied {
            break;
        }
    }
    Ok(())
}
