//! Limits how often an event is logged, so that a lasting failure does not flood the log.

use std::time::Duration;
use tokio::time::Instant;

/// Passes one event per interval and counts the others.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    passed_at: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// Passes the first event, and later ones at least `interval` apart.
    pub fn new(interval: Duration) -> Self {
        Self { interval, passed_at: None, suppressed: 0 }
    }

    /// Counts an event. If it is to be logged, returns the number of events that were suppressed since the last one.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.passed_at.is_some_and(|at| now.saturating_duration_since(at) < self.interval) {
            self.suppressed += 1;
            return None;
        }
        self.passed_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_events_pass_once_per_interval_with_the_count_of_the_others() {
        let start = Instant::now();
        let mut limit = LogLimit::new(Duration::from_secs(10));
        assert_eq!(limit.pass(start), Some(0));
        assert_eq!(limit.pass(start), None);
        assert_eq!(limit.pass(start + Duration::from_secs(9)), None);
        assert_eq!(limit.pass(start + Duration::from_secs(10)), Some(2));
        assert_eq!(limit.pass(start + Duration::from_secs(11)), None);
    }
}
