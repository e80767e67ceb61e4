//! Gateways that did not answer in time, and how much of it they get until they do.
//!
//! A gateway that hangs would hold up every push for a whole deadline, and with it everybody else's. So after a
//! delivery that was late a gateway gets a rest, and after each rest one short try, until it answers again. What it misses
//! meanwhile its devices learn by heartbeat. A failure that comes at once costs nobody anything and is not held
//! against a gateway.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a gateway is left alone after a late delivery.
const REST: Duration = Duration::from_secs(1);
/// A gateway that nobody asked for so long is forgotten: it is gone.
const FORGET: Duration = Duration::from_secs(60);
/// How many times shorter a try after a rest is.
const SHORT: u32 = 10;

#[derive(Debug, Default)]
pub(crate) struct Rests {
    /// Until when each rests. Bounded by the gateways that were late within [`FORGET`].
    until: Mutex<HashMap<Arc<str>, Instant>>,
}

impl Rests {
    /// How much time a delivery gets out of `full`; `None`: none is tried now.
    pub(crate) fn deadline(&self, gateway: &str, full: Duration) -> Option<Duration> {
        match self.lock().get(gateway) {
            None => Some(full),
            Some(until) => (*until <= Instant::now()).then_some(full / SHORT),
        }
    }

    /// A gateway answered, whatever it said.
    pub(crate) fn answered(&self, gateway: &str) {
        self.lock().remove(gateway);
    }

    /// A gateway did not answer in time.
    pub(crate) fn late(&self, gateway: &Arc<str>) {
        let now = Instant::now();
        let mut until = self.lock();
        until.retain(|_, until| *until + FORGET > now);
        until.insert(Arc::clone(gateway), now + REST);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn p5_a_late_gateway_rests_is_tried_shortly_and_comes_back() {
        let full = Duration::from_secs(2);
        let rests = Rests::default();
        let gateway: Arc<str> = "gw:1".into();
        assert_eq!(rests.deadline(&gateway, full), Some(full));
        rests.late(&gateway);
        assert_eq!(rests.deadline(&gateway, full), None);
        assert_eq!(rests.deadline("gw:2", full), Some(full));
        tokio::time::advance(REST).await;
        assert_eq!(rests.deadline(&gateway, full), Some(full / SHORT));
        rests.answered(&gateway);
        assert_eq!(rests.deadline(&gateway, full), Some(full));
    }

    #[tokio::test(start_paused = true)]
    async fn p7_gateways_that_are_gone_are_forgotten() {
        let rests = Rests::default();
        for number in 0..100 {
            rests.late(&format!("gw:{number}").into());
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert!(rests.lock().len() < 10);
    }
}
