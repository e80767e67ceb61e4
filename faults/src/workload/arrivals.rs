//! Messages that a probe waits for.

use crate::ledger::{DeviceId, Id};
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// A set of expected arrivals, each of one message at one device.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    missing: Mutex<HashSet<(DeviceId, Id)>>,
    complete: Notify,
}

impl Arrivals {
    fn missing(&self) -> MutexGuard<'_, HashSet<(DeviceId, Id)>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the expected arrivals.
    pub(super) fn expect(&self, expected: HashSet<(DeviceId, Id)>) {
        *self.missing() = expected;
    }

    /// Records an arrival.
    pub(super) fn arrived(&self, device: DeviceId, client_msg_id: &str) {
        let Some(id) = Id::parse(client_msg_id) else { return };
        let mut missing = self.missing();
        if missing.remove(&(device, id)) && missing.is_empty() {
            self.complete.notify_waiters();
        }
    }

    /// The number of missing arrivals.
    pub(super) fn missing_count(&self) -> usize {
        self.missing().len()
    }

    /// Waits until no arrival is missing.
    pub(super) async fn wait(&self) {
        loop {
            let complete = self.complete.notified();
            if self.missing().is_empty() {
                return;
            }
            complete.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn arrivals_before_the_wait_count() {
        let (arrivals, id) = (Arrivals::default(), Id([7; 16]));
        arrivals.expect([(0, id), (1, id)].into());
        arrivals.arrived(0, &id.to_string());
        arrivals.arrived(0, &id.to_string());
        assert_eq!(arrivals.missing_count(), 1);
        arrivals.arrived(1, &id.to_string());
        arrivals.wait().await;
    }
}
