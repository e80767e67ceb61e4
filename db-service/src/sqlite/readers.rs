//! A few connections that read, so that reads don't queue behind writes.

use super::schema;
use crate::error::{Error, Result};
use rusqlite::Connection;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// Reads at a time.
const CONNECTIONS: usize = 4;
/// A read that finds no free connection by then fails.
const WAIT: Duration = Duration::from_secs(5);

/// Connections that read, opened when they are first needed.
pub(super) struct Readers {
    permits: Arc<Semaphore>,
    pool: Arc<Pool>,
}

struct Pool {
    path: PathBuf,
    /// Connections that nobody uses.
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        let pool = Pool { path, idle: Mutex::new(Vec::with_capacity(CONNECTIONS)) };
        Self { permits: Arc::new(Semaphore::new(CONNECTIONS)), pool: Arc::new(pool) }
    }

    /// Runs `read` in a transaction of its own: it sees one state of the store, with everything committed before.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = timeout(WAIT, Arc::clone(&self.permits).acquire_owned())
            .await
            .map_err(|_| Error::Busy)?
            .map_err(|_| Error::Stopped)?;
        let pool = Arc::clone(&self.pool);
        let work = spawn_blocking(move || {
            let _permit = permit;
            let mut conn = pool.take()?;
            let transaction = conn.transaction()?;
            let outcome = read(&transaction);
            // A connection whose transaction can't be ended is not used again.
            transaction.finish()?;
            pool.give_back(conn);
            outcome
        });
        work.await.map_err(|_| Error::Stopped)?
    }
}

impl Pool {
    fn take(&self) -> Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| schema::open_reader(&self.path), Ok)
    }

    fn give_back(&self, conn: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }
}
