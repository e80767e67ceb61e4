//! A pooled connection for one call.

use crate::{
    error::{Error, Result},
    metrics,
};
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use std::{
    ops::{Deref, DerefMut},
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// A released connection must become idle within this time. Otherwise it is closed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that belongs to one call.
///
/// If a call is cancelled or times out, its connection is in an unknown state: a statement may still be running, a transaction
/// may be open (in which the writes of later calls would be lost), or the peer may be gone. Such a connection is closed. Only
/// [`CallConnection::release`], after the last statement was answered, returns it to the pool.
pub(super) struct CallConnection {
    /// `None` only once it was released.
    conn: Option<PoolConnection<Postgres>>,
    releases: TaskTracker,
}

impl CallConnection {
    /// Takes a connection from a pool. `releases` owns the task that will return it.
    pub(super) async fn acquire(pool: &PgPool, releases: &TaskTracker) -> Result<Self> {
        let began = Instant::now();
        let acquired = pool.acquire().await;
        metrics::waited_for_connection(began.elapsed());
        Ok(Self { conn: Some(acquired?), releases: releases.clone() })
    }

    /// Returns the connection to the pool, unless the outcome shows that it is broken.
    pub(super) fn release<T>(mut self, outcome: &Result<T>) {
        let answered = match outcome {
            Err(Error::Postgres(error)) => error.as_database_error().is_some(),
            _ => true,
        };
        if answered && let Some(mut conn) = self.conn.take() {
            // Without a timeout, the pool would wait forever for a peer that is gone and lose one connection
            // permanently.
            self.releases.spawn(async move {
                if timeout(RELEASE_TIMEOUT, conn.return_to_pool()).await.is_err() {
                    tracing::warn!("a connection to postgres did not answer when released; closing it");
                }
            });
        }
    }
}

impl Deref for CallConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.conn.as_ref().expect("the connection is present until it is released")
    }
}

impl DerefMut for CallConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.conn.as_mut().expect("the connection is present until it is released")
    }
}

impl Drop for CallConnection {
    fn drop(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.close_on_drop();
        }
    }
}
