//! How long to wait before trying again.

use std::time::Duration;

/// Waits that double up to a limit, each shortened at random, so that many who failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first wait. 100 ms by default.
    pub first: Duration,
    /// The longest wait, and so the longest that something goes on after what it waited for is well again. 1 s by default.
    pub max: Duration,
    /// By which share of it a wait may be shortened, from 0 (never) to 1. 0.5 by default.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(1), jitter: 0.5 }
    }
}

impl Backoff {
    /// The wait after the `attempt`-th failure, counted from 1.
    pub fn delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        let full = self.first.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(1.0 - self.jitter.clamp(0.0, 1.0) * rand::random_range(0.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_never_vanish() {
        let backoff = Backoff::default();
        for (attempt, full) in [(1, 100), (2, 200), (4, 800), (5, 1000), (4_000_000_000, 1000)] {
            let delay = backoff.delay(attempt).as_millis();
            assert!((full / 2..=full).contains(&delay), "attempt {attempt}: {delay}");
        }
    }

    #[test]
    fn without_jitter_every_wait_is_known() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        assert_eq!(backoff.delay(2), Duration::from_millis(200));
    }
}
