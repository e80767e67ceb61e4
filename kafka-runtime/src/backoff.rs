//! Exponential backoff with jitter.

use std::time::Duration;

/// Exponential backoff: delays double up to a maximum. Jitter subtracts a random part, so that clients that failed together do
/// not retry together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first delay. 100 ms by default.
    pub first: Duration,
    /// The maximum delay. 1 s by default.
    pub max: Duration,
    /// Maximum fraction of a delay that jitter subtracts, from 0 to 1. 0.5 by default.
    pub jitter: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(1), jitter: 0.5 }
    }
}

impl Backoff {
    /// The delay after a failed attempt, counted from 1.
    pub fn delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        let delay = self.first.saturating_mul(1 << doublings).min(self.max);
        delay.mul_f64(1.0 - self.jitter.clamp(0.0, 1.0) * rand::random_range(0.0..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_stay_above_half() {
        let backoff = Backoff::default();
        for (attempt, full) in [(1, 100), (2, 200), (4, 800), (5, 1000), (4_000_000_000, 1000)] {
            let delay = backoff.delay(attempt).as_millis();
            assert!((full / 2..=full).contains(&delay), "attempt {attempt}: {delay}");
        }
    }

    #[test]
    fn without_jitter_delays_are_exact() {
        let backoff = Backoff { jitter: 0.0, ..Backoff::default() };
        assert_eq!(backoff.delay(2), Duration::from_millis(200));
    }
}
