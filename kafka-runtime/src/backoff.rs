//! How long to wait before trying again.

use std::time::Duration;

/// Waits that double up to a limit, each shortened by up to half at random, so that many who failed together do not come
/// back together.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// The wait after the `attempt`-th failure, counted from 1.
    pub fn delay(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        let full = self.first.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_never_vanish() {
        let backoff = Backoff::default();
        for (attempt, full) in [(1, 100), (2, 200), (6, 3200), (7, 5000), (4_000_000_000, 5000)] {
            let delay = backoff.delay(attempt).as_millis();
            assert!((full / 2..=full).contains(&delay), "attempt {attempt}: {delay}");
        }
    }
}
