//! How long to wait before another try, and whether a failure is worth one.

use rand::RngExt as _;
use std::time::Duration;

/// Pauses that double from `first` to `most`, each shortened by a random part so that many who failed together don't
/// come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    /// Part of a pause that is random, 0 to 1.
    jitter: f64,
    failures: u32,
}

impl Backoff {
    /// From `first` to `most`; half of each pause is random.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most: most.max(first), jitter: 0.5, failures: 0 }
    }

    /// With another random part: 0 for none, 1 for pauses anywhere between nothing and the whole.
    pub fn with_jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter.clamp(0.0, 1.0);
        self
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        self.next_pause_with(rand::random_range(0.0..1.0))
    }

    /// The next pause, drawn with a generator of the caller's.
    pub fn next_pause_from(&mut self, random: &mut impl rand::Rng) -> Duration {
        self.next_pause_with(random.random_range(0.0..1.0))
    }

    fn next_pause_with(&mut self, random: f64) -> Duration {
        let doubled = self.first.checked_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let whole = doubled.map_or(self.most, |pause| pause.min(self.most));
        self.failures = self.failures.saturating_add(1).min(31);
        whole.mul_f64(1.0 - self.jitter * random)
    }

    /// Waits the next pause out.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }

    /// It worked: the next pause is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Pauses since the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// Says of a failure whether another try may succeed. It only says so: who retries, and when, is up to the caller.
pub trait Recover {
    /// Whether another try is worth it.
    fn may_recover(&self) -> bool;
}

impl Recover for tonic::Code {
    /// What passes by itself: the other side is away, or told us to try again.
    fn may_recover(&self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::DeadlineExceeded
                | Self::Cancelled
                | Self::Aborted
                | Self::ResourceExhausted
        )
    }
}

impl Recover for tonic::Status {
    fn may_recover(&self) -> bool {
        self.code().may_recover()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn pauses_double_up_to_the_most_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1)).with_jitter(0.0);
        let pauses: Vec<_> = (0..6).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        for _ in 0..100 {
            assert_eq!(backoff.next_pause(), Duration::from_secs(1), "no overflow");
        }
        backoff.reset();
        assert_eq!(backoff.next_pause(), Duration::from_millis(100));
    }

    #[test]
    fn jitter_shortens_by_at_most_its_part() {
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let pauses: Vec<_> = (0..100).map(|_| backoff.next_pause_from(&mut random)).collect();
        assert!(pauses.iter().all(|p| (500..=1000).contains(&p.as_millis())), "{pauses:?}");
        assert!(pauses.iter().any(|p| *p != pauses[0]));
    }

    #[test]
    fn p6_an_outage_is_worth_a_retry_and_a_bad_request_is_not() {
        assert!(tonic::Status::unavailable("").may_recover());
        assert!(!tonic::Status::invalid_argument("").may_recover());
    }
}
