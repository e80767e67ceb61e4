//! How long to wait before another try.

use std::time::Duration;

/// Part of a pause that is random.
const JITTER: f64 = 0.5;

/// Pauses that double from `first` to `most`, each shortened by a random part so that many who failed together don't
/// come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// From `first` to `most`; half of each pause is random.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most: most.max(first), failures: 0 }
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        self.next_pause_with(rand::random_range(0.0..1.0))
    }

    fn next_pause_with(&mut self, random: f64) -> Duration {
        let doubled = self.first.checked_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let whole = doubled.map_or(self.most, |pause| pause.min(self.most));
        self.failures = self.failures.saturating_add(1).min(31);
        whole.mul_f64(1.0 - JITTER * random)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_most_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<_> = (0..6).map(|_| backoff.next_pause_with(0.0).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        for _ in 0..100 {
            assert_eq!(backoff.next_pause_with(0.0), Duration::from_secs(1), "no overflow");
        }
        backoff.reset();
        assert_eq!(backoff.next_pause_with(0.0), Duration::from_millis(100));
    }

    #[test]
    fn jitter_shortens_by_at_most_its_part() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let pauses: Vec<_> = (0..100).map(|_| backoff.next_pause()).collect();
        assert!(pauses.iter().all(|p| (500..=1000).contains(&p.as_millis())), "{pauses:?}");
        assert!(pauses.iter().any(|p| *p != pauses[0]));
    }
}
