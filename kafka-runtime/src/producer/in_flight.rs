//! How many records wait for their outcome, and waiting until none does.

use super::ProduceError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Counts records that were enqueued and not yet answered.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    idle: Notify,
}

impl InFlight {
    /// How many there are now.
    pub(crate) fn begin(&self, count: usize) -> usize {
        self.count.fetch_add(count, Ordering::SeqCst) + count
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Takes back a [`begin`](Self::begin), or ends `count` records after their callbacks were called.
    pub(crate) fn end(&self, count: usize) {
        if count > 0 && self.count.fetch_sub(count, Ordering::SeqCst) == count {
            self.idle.notify_waiters();
        }
    }

    pub(crate) async fn wait_idle(&self, deadline: Duration) -> Result<(), ProduceError> {
        let idle = async {
            loop {
                // The future is made before the count is read: an end between the two is not missed.
                let notified = self.idle.notified();
                if self.is_idle() {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(deadline, idle).await.map_err(|_| ProduceError::TimedOut)
    }
}
