//! Tracks the age of the oldest record that a client holds, at the cost of two additions per record.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const STEPS: usize = 16;

/// Number of records by the time step in which they were enqueued.
#[derive(Debug, Default)]
pub(super) struct Ages {
    counts: [AtomicUsize; STEPS],
    now: AtomicUsize,
}

/// The time step in which a record was enqueued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age(usize);

/// A record has exceeded its timeout.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooOld;

impl Ages {
    /// The interval in which to call [`Self::advance`]. A record becomes too old after `timeout`, at most a
    /// fifteenth later.
    pub(super) fn step(timeout: Duration) -> Duration {
        (timeout / (STEPS as u32 - 1)).max(Duration::from_millis(1))
    }

    pub(super) fn begin(&self) -> Age {
        let age = self.now.load(Ordering::SeqCst) % STEPS;
        self.counts[age].fetch_add(1, Ordering::SeqCst);
        Age(age)
    }

    pub(super) fn end(&self, Age(age): Age) {
        self.counts[age].fetch_sub(1, Ordering::SeqCst);
    }

    /// Advances to the next time step. Must be called by one thread only.
    pub(super) fn advance(&self) -> Result<(), TooOld> {
        let next = self.now.load(Ordering::SeqCst).wrapping_add(1);
        if self.counts[next % STEPS].load(Ordering::SeqCst) > 0 {
            return Err(TooOld);
        }
        self.now.store(next, Ordering::SeqCst);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_too_old_after_the_timeout_and_at_most_a_fifteenth_later() {
        let timeout = Duration::from_secs(15);
        let ages = Ages::default();
        for _ in 0..100 {
            ages.end(ages.begin());
            ages.advance().unwrap();
        }
        let age = ages.begin();
        let steps = (0_u32..).find(|_| ages.advance().is_err()).unwrap();
        // The record was enqueued within the first step and is found at the beginning of the step after the
        // last.
        assert_eq!(Ages::step(timeout) * steps, timeout);
        assert_eq!(ages.advance(), Err(TooOld));
        ages.end(age);
        assert_eq!(ages.advance(), Ok(()));
    }
}
