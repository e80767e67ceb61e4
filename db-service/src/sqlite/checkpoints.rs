//! Checkpoints: what the write-ahead log holds is copied into the file by a thread of its own, so that nobody who writes
//! waits for the disk meanwhile.
//!
//! The same thread has the write-ahead log written to the disk all the time, in small portions. Left to themselves, a
//! second's worth of pages goes out at the next sync, and the log of messages, whose fsync every ack waits for, queues up behind them.

use super::schema;
use crate::error::{Error, Result};
use rusqlite::Connection;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread::{Builder, JoinHandle},
    time::Duration,
};

/// The write-ahead log is looked at, and its new pages are written, this often.
const LOOK: Duration = Duration::from_millis(50);
/// A checkpoint is made when the log has this many bytes: 8,000 pages, the best of those measured.
const DUE: u64 = 8_000 * 4_096;
/// The log begins anew only after a checkpoint that nothing was written after. So much is tried for one.
const TRIES: usize = 8;

/// The thread; it ends with this.
pub(super) struct Checkpoints {
    /// `None` only while it is dropped.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Starts the thread for a store that exists.
    pub(super) fn start(path: &Path) -> Result<Self> {
        let conn = schema::open_checkpointer(path)?;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        let (stop, stopped) = mpsc::channel();
        let run = move || {
            let mut seen = None;
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let Ok((changed, bytes)) = log.metadata().and_then(|log| Ok((log.modified()?, log.len())))
                else {
                    continue;
                };
                if seen.replace(changed) == Some(changed) {
                    continue;
                }
                // A failure shows at the next sync that somebody waits for.
                if let Err(error) = File::open(&log).and_then(|log| log.sync_data()) {
                    tracing::debug!(%error, "the write-ahead log was not written");
                }
                if bytes >= DUE
                    && let Err(error) = checkpoint(&conn)
                {
                    tracing::warn!(%error, "no checkpoint of the store; trying again");
                }
            }
        };
        let thread = Builder::new().name("store-checkpoint".into()).spawn(run).map_err(|_| Error::Stopped)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the checkpoints panicked");
        }
    }
}

/// Copies without making anybody wait, until there is nothing left or others write faster.
fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    for _ in 0..TRIES {
        let (in_log, copied) = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })?;
        if in_log == copied {
            break;
        }
    }
    Ok(())
}
