//! The number of records in flight, and waiting until there are none.

use super::ProduceError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Counts records that were enqueued and have no result yet.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    idle: Notify,
}

impl InFlight {
    /// Adds `count` records and returns the new number.
    pub(crate) fn begin(&self, count: usize) -> usize {
        self.count.fetch_add(count, Ordering::SeqCst) + count
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// Removes `count` records, after their callbacks were called or because they were not accepted.
    pub(crate) fn end(&self, count: usize) {
        if count > 0 && self.count.fetch_sub(count, Ordering::SeqCst) == count {
            self.idle.notify_waiters();
        }
    }

    pub(crate) async fn wait_idle(&self, deadline: Duration) -> Result<(), ProduceError> {
        let idle = async {
            loop {
                // Create the future before reading the count, so that an `end` in between is not missed.
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
