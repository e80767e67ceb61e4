//! Growing pauses with jitter between attempts.

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// Upper bound for a pause that the server asks for.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The pause before the next attempt. Half of it is jitter, so that devices that were cut off together do not
/// reconnect together.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// Pauses from about 100 ms to `max`.
    pub fn new(max: Duration) -> Self {
        // backon adds jitter between zero and its delay. With half the delay, pauses lie between half and all of it.
        let builder = ExponentialBuilder::new()
            .with_min_delay(FIRST / 2)
            .with_max_delay(max.max(FIRST) / 2)
            .without_max_times()
            .with_jitter();
        Self { builder, pauses: builder.build() }
    }

    /// The next pause. If the server asked for a pause, it is at least that long (up to a day), and at most 1.5 times.
    pub fn pause(&mut self, requested: Option<Duration>) -> Duration {
        let pause = self.pauses.next().unwrap_or(LONGEST);
        match requested.map(|requested| requested.min(LONGEST)) {
            Some(requested) => requested + requested.max(FIRST).mul_f64(rand::random_range(0.0..0.5)),
            None => pause,
        }
    }

    /// An attempt succeeded: the next pause is short again.
    pub fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

/// The pause before a request that was refused `attempts` times is sent again; at most 30 hours.
pub(crate) fn retry_pause(attempts: u32, requested: Option<Duration>) -> Duration {
    let base =
        requested.map_or_else(|| FIRST * 2u32.pow(attempts.min(6)), |requested| requested.min(LONGEST));
    base.mul_f64(rand::random_range(1.0..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn pauses_grow_to_the_maximum_and_start_over_after_a_reset() {
        let max = Duration::from_secs(2);
        let mut backoff = Backoff::new(max);
        let first = backoff.pause(None);
        assert!(first >= FIRST / 2 && first <= FIRST);
        let last = (0..20).map(|_| backoff.pause(None)).last().unwrap();
        assert!(last >= max / 2 && last <= max);
        backoff.reset();
        assert!(backoff.pause(None) <= FIRST);
    }

    #[test]
    fn a_pause_is_never_shorter_than_the_server_asked() {
        let requested = Duration::from_millis(700);
        let mut backoff = Backoff::new(Duration::from_secs(9));
        for attempt in 0..50 {
            assert!(backoff.pause(Some(requested)) >= requested);
            assert!(retry_pause(attempt, Some(requested)) >= requested);
        }
        assert!(backoff.pause(Some(Duration::MAX)) >= LONGEST);
        assert!(Instant::now() + retry_pause(0, Some(Duration::MAX)) >= Instant::now() + LONGEST);
    }
}
