//! Growing, jittered pauses between attempts.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
/// However long a server, or whoever is in its place, asks to wait.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The pause before the next attempt. Half of it is chance, so that devices that were cut off together do not come
/// back together.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Pauses from about 100 ms to `max`.
    pub fn new(max: Duration) -> Self {
        Self { next: FIRST, max: max.max(FIRST) }
    }

    /// The next pause; at least `told`, what the server asked for up to a day, and at most half more than that.
    pub fn pause(&mut self, told: Option<Duration>) -> Duration {
        let base = self.next;
        self.next = (self.next * 2).min(self.max);
        match told.map(|told| told.min(LONGEST)) {
            Some(told) => told + told.max(FIRST).mul_f64(rand::random_range(0.0..0.5)),
            None => base.mul_f64(rand::random_range(0.5..1.0)),
        }
    }

    /// An attempt worked.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

/// The pause before a request is sent again that was refused `attempts` times; at most a day and a quarter.
pub(crate) fn retry_pause(attempts: u32, told: Option<Duration>) -> Duration {
    let base = told.map_or_else(|| FIRST * 2u32.pow(attempts.min(6)), |told| told.min(LONGEST));
    base.mul_f64(rand::random_range(1.0..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn pauses_grow_to_the_limit_and_begin_again() {
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
    fn never_sooner_than_the_server_asked() {
        let told = Duration::from_millis(700);
        let mut backoff = Backoff::new(Duration::from_secs(9));
        for attempt in 0..50 {
            assert!(backoff.pause(Some(told)) >= told);
            assert!(retry_pause(attempt, Some(told)) >= told);
        }
        assert!(backoff.pause(Some(Duration::MAX)) >= LONGEST);
        assert!(Instant::now() + retry_pause(0, Some(Duration::MAX)) >= Instant::now() + LONGEST);
    }
}
