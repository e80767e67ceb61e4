//! Exponential backoff with jitter.

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;

/// The pauses between retries: they double from `first` to `longest`. Half of each pause is random, so that callers that
/// failed together do not retry together.
#[derive(Debug)]
pub struct Backoff {
    schedule: ExponentialBuilder,
    pauses: ExponentialBackoff,
    failures: u32,
}

impl Backoff {
    /// A backoff from `first` to `longest`, or of constant length if `longest` is shorter than `first`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        // backon's jitter adds 0 % to 100 % of a pause. Half the length makes that 50 % to 100 % of the whole.
        let schedule = ExponentialBuilder::new()
            .with_min_delay(first / 2)
            .with_max_delay(longest.max(first) / 2)
            .without_max_times()
            .with_jitter();
        Self { schedule, pauses: schedule.build(), failures: 0 }
    }

    /// The next pause.
    pub fn next_pause(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.pauses.next().expect("the schedule is unlimited")
    }

    /// Sleeps for the next pause.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_pause()).await;
    }

    /// Starts again with the first pause. Call it after a success.
    pub fn reset(&mut self) {
        self.pauses = self.schedule.build();
        self.failures = 0;
    }

    /// Number of pauses since the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let assert_next = |backoff: &mut Backoff, whole: u64| {
            // backon multiplies with f32, which rounds.
            let rounding = Duration::from_micros(1);
            let (pause, whole) = (backoff.next_pause(), Duration::from_millis(whole));
            assert!(pause >= whole / 2 - rounding && pause <= whole + rounding, "{pause:?} of {whole:?}");
        };
        for whole in [100, 200, 400, 800].into_iter().chain([1_000; 100]) {
            assert_next(&mut backoff, whole);
        }
        assert_eq!(backoff.failures(), 104);
        backoff.reset();
        assert_next(&mut backoff, 100);
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn jitter_shortens_a_pause_by_at_most_half() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
        let pauses: Vec<_> = (0..100).map(|_| backoff.next_pause()).collect();
        assert!(pauses.iter().all(|p| (500..=1000).contains(&p.as_millis())), "{pauses:?}");
        assert!(pauses.iter().any(|p| *p != pauses[0]));
    }
}
