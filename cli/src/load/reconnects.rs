//! The number of reconnects, in total and in the worst second: the load that a stopping server puts on the others.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const SECOND: Duration = Duration::from_secs(1);

/// Counts reconnects.
#[derive(Debug, Default)]
pub(super) struct Reconnects {
    /// Reconnects of the last second.
    recent: VecDeque<Instant>,
    total: u64,
    most: u64,
}

impl Reconnects {
    /// Counts a reconnect.
    pub(super) fn count(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|first| now.duration_since(*first) >= SECOND) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.total += 1;
        self.most = self.most.max(self.recent.len() as u64);
    }

    /// Reconnects in total.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The most reconnects within any period of 1 s.
    pub(super) fn most_in_a_second(&self) -> u64 {
        self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_second_may_start_at_any_time() {
        let start = Instant::now();
        let mut reconnects = Reconnects::default();
        assert_eq!(reconnects.most_in_a_second(), 0);
        for millis in [0, 900, 1_000, 1_800, 1_950, 5_000, 5_999] {
            reconnects.count(start + Duration::from_millis(millis));
        }
        assert_eq!((reconnects.total(), reconnects.most_in_a_second()), (7, 3));
    }
}
