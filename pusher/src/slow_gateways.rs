//! Gateways that did not answer a delivery in time.
//!
//! A gateway that hangs would delay every push by a whole deadline. So after a timeout the pusher skips the gateway for
//! [`PAUSE`], then tries it with a short deadline, and repeats this until the gateway answers. Devices on it find out about
//! missed deliveries with their next heartbeat. A gateway that fails immediately delays no push and is not skipped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a gateway is skipped after a timeout.
const PAUSE: Duration = Duration::from_secs(1);
/// A slow gateway without deliveries for this long is forgotten: it no longer exists.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// Divisor of the deadline of a retry.
const RETRY_DIVISOR: u32 = 10;

/// The slow gateways, by address.
#[derive(Debug, Default)]
pub(crate) struct SlowGateways {
    /// When each may be retried. Bounded by the number of gateways with a timeout within [`FORGET_AFTER`].
    retry_at: Mutex<HashMap<Arc<str>, Instant>>,
}

impl SlowGateways {
    /// The deadline of the next delivery to a gateway, at most `full`; `None` to skip the gateway.
    pub(crate) fn deadline(&self, gateway: &str, full: Duration) -> Option<Duration> {
        match self.lock().get(gateway) {
            None => Some(full),
            Some(retry_at) => (*retry_at <= Instant::now()).then_some(full / RETRY_DIVISOR),
        }
    }

    /// Records an answer, whether success or error.
    pub(crate) fn answered(&self, gateway: &str) {
        self.lock().remove(gateway);
    }

    /// Records a timeout.
    pub(crate) fn timed_out(&self, gateway: &Arc<str>) {
        let now = Instant::now();
        let mut retry_at = self.lock();
        retry_at.retain(|_, retry_at| *retry_at + FORGET_AFTER > now);
        retry_at.insert(Arc::clone(gateway), now + PAUSE);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Instant>> {
        self.retry_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn p5_a_slow_gateway_is_skipped_then_retried_with_a_short_deadline_until_it_answers() {
        let full = Duration::from_secs(2);
        let slow = SlowGateways::default();
        let gateway: Arc<str> = "gw:1".into();
        assert_eq!(slow.deadline(&gateway, full), Some(full));
        slow.timed_out(&gateway);
        assert_eq!(slow.deadline(&gateway, full), None);
        assert_eq!(slow.deadline("gw:2", full), Some(full));
        tokio::time::advance(PAUSE).await;
        assert_eq!(slow.deadline(&gateway, full), Some(full / RETRY_DIVISOR));
        slow.answered(&gateway);
        assert_eq!(slow.deadline(&gateway, full), Some(full));
    }

    #[tokio::test(start_paused = true)]
    async fn p7_gateways_that_no_longer_exist_are_forgotten() {
        let slow = SlowGateways::default();
        for number in 0..100 {
            slow.timed_out(&format!("gw:{number}").into());
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert!(slow.lock().len() < 10);
    }
}
