//! A connection for one call.

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

/// A connection that is given back has so long to answer, or is closed.
const ANSWER: Duration = Duration::from_secs(2);

/// A connection that a call has for itself.
///
/// It goes back to the pool only by [`Lent::back`], when all that was asked on it was answered. A call that is given up
/// on its way, because its caller left or its time was over, leaves nobody knows what: a statement that is still being
/// done, a transaction that has just begun (in which everything that later calls store would vanish with it), a peer
/// that will never answer. Such a connection is closed.
pub(super) struct Lent {
    conn: Option<PoolConnection<Postgres>>,
    returns: TaskTracker,
}

impl Lent {
    /// Takes a connection out of a pool; `returns` owns what waits for its return.
    pub(super) async fn from(pool: &PgPool, returns: &TaskTracker) -> Result<Self> {
        let began = Instant::now();
        let acquired = pool.acquire().await;
        metrics::waited_for_connection(began.elapsed());
        Ok(Self { conn: Some(acquired?), returns: returns.clone() })
    }

    /// The call is over.
    pub(super) fn back<T>(mut self, outcome: &Result<T>) {
        let answered = match outcome {
            Err(Error::Postgres(error)) => error.as_database_error().is_some(),
            _ => true,
        };
        if answered && let Some(mut conn) = self.conn.take() {
            // By itself the pool would wait for ever for a peer that is gone, and be one connection smaller.
            self.returns.spawn(async move {
                if timeout(ANSWER, conn.return_to_pool()).await.is_err() {
                    tracing::warn!("a connection to postgres does not answer; it is closed");
                }
            });
        }
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.conn.as_ref().expect("it is there until it is given back")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.conn.as_mut().expect("it is there until it is given back")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.close_on_drop();
        }
    }
}
