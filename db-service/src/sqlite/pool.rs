//! A pool of read-only connections, so that reads do not queue behind writes.

use super::schema;
use crate::error::{Error, Result};
use rusqlite::Connection;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Most concurrent reads.
const CONNECTIONS: usize = 4;
/// A read that waits longer for a connection fails.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pool. It opens connections on demand.
pub(super) struct ReadPool {
    permits: Arc<Semaphore>,
    pool: Arc<Pool>,
}

struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl ReadPool {
    pub(super) fn new(path: PathBuf) -> Self {
        let pool = Pool { path, idle: Mutex::new(Vec::with_capacity(CONNECTIONS)) };
        Self { permits: Arc::new(Semaphore::new(CONNECTIONS)), pool: Arc::new(pool) }
    }

    /// Runs `read` in a transaction of its own. It sees one snapshot, which contains every earlier commit.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| Error::Busy)?
            .map_err(|_| Error::Stopped)?;
        let pool = Arc::clone(&self.pool);
        let work = spawn_blocking(move || {
            let _permit = permit;
            let mut conn = pool.acquire()?;
            let transaction = conn.transaction()?;
            let outcome = read(&transaction);
            // If the transaction can't be finished, `?` drops the connection instead of returning it to the pool.
            transaction.finish()?;
            pool.release(conn);
            outcome
        });
        work.await.map_err(|_| Error::Stopped)?
    }
}

impl Pool {
    fn acquire(&self) -> Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| schema::open_reader(&self.path), Ok)
    }

    fn release(&self, conn: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }
}
