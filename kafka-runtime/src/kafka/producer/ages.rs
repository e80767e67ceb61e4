//! How old the oldest record is that a client holds, for two additions per record.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const STEPS: usize = 16;

/// Counts of records by the step of time in which they were enqueued.
#[derive(Debug, Default)]
pub(super) struct Ages {
    counts: [AtomicUsize; STEPS],
    now: AtomicUsize,
}

/// When a record was enqueued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age(usize);

/// A record has been there for longer than it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooOld;

impl Ages {
    /// How often to call [`Self::grow_older`] so that records are too old after `timeout`, and at most a fifteenth of it later.
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

    /// A step of time has passed. For one thread only.
    pub(super) fn grow_older(&self) -> Result<(), TooOld> {
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
            ages.grow_older().unwrap();
        }
        let age = ages.begin();
        let steps = (0_u32..).find(|_| ages.grow_older().is_err()).unwrap();
        // It was enqueued anywhere within the first step, and is found at the beginning of the one after the last.
        assert_eq!(Ages::step(timeout) * steps, timeout);
        assert_eq!(ages.grow_older(), Err(TooOld));
        ages.end(age);
        assert_eq!(ages.grow_older(), Ok(()));
    }
}
