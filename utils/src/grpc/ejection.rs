//! Ejection of failing endpoints: a circuit breaker per endpoint.
//!
//! Balancing by latency alone prefers an endpoint that fails fast. Therefore an endpoint is ejected after several
//! consecutive failures. The ejection lasts for a jittered time that doubles with each failure. Then a single probe call
//! decides whether the endpoint returns.

use crate::backoff::Backoff;
use std::time::Duration;
use tokio::time::Instant;

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Consecutive failures that eject.
    pub(super) failures: u32,
    /// Length of the first ejection.
    pub(super) first: Duration,
    /// Length of the longest ejection.
    pub(super) longest: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// Receives calls.
    Open,
    /// The ejection is over; the endpoint receives one probe call.
    Probe,
    /// Receives no calls until then.
    Ejected(Instant),
}

#[derive(Debug)]
pub(super) struct Ejection {
    max_failures: u32,
    backoff: Backoff,
    failures: u32,
    until: Option<Instant>,
    probing: bool,
}

impl Ejection {
    pub(super) fn new(policy: Policy) -> Self {
        let backoff = Backoff::new(policy.first, policy.longest);
        Self { max_failures: policy.failures, backoff, failures: 0, until: None, probing: false }
    }

    pub(super) fn state(&self, now: Instant) -> State {
        match self.until {
            None => State::Open,
            Some(until) if now >= until && !self.probing => State::Probe,
            // The endpoint stays ejected until the probe call has ended.
            Some(until) => State::Ejected(until),
        }
    }

    /// Records the start of a call. Returns whether it is the probe; see [`Ejection::cancelled`].
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let is_probe = self.state(now) == State::Probe;
        self.probing |= is_probe;
        is_probe
    }

    /// Records that a call was cancelled before it had an outcome.
    pub(super) fn cancelled(&mut self, was_probe: bool) {
        if was_probe {
            self.probing = false;
        }
    }

    /// Records a success. Returns whether that ended an ejection.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.probing = false;
        self.backoff.reset();
        self.until.take().is_some()
    }

    /// Records a failure. If it ejects the endpoint, returns for how long.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let ejects = match self.until {
            None => self.failures >= self.max_failures,
            // Ignore failures during the ejection: calls that started before it, and calls that had no other endpoint.
            Some(until) => now >= until,
        };
        self.probing = false;
        ejects.then(|| {
            let pause = self.backoff.next_pause();
            self.until = Some(now + pause);
            pause
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy =
        Policy { failures: 2, first: Duration::from_secs(1), longest: Duration::from_secs(8) };

    #[test]
    fn consecutive_failures_eject_and_one_probe_decides() {
        let start = Instant::now();
        let mut ejection = Ejection::new(POLICY);
        assert_eq!(ejection.failed(start), None);
        ejection.succeeded();
        assert_eq!(ejection.failed(start), None, "not consecutive");
        let pause = ejection.failed(start).unwrap();
        assert_eq!(ejection.state(start), State::Ejected(start + pause));

        let later = start + pause;
        assert_eq!(ejection.state(later), State::Probe);
        assert!(ejection.begin(later));
        assert!(matches!(ejection.state(later), State::Ejected(_)), "only one probe");
        assert!(ejection.failed(later).is_some());
        let again = later + POLICY.longest;
        assert!(ejection.begin(again));
        assert!(ejection.succeeded());
        assert_eq!(ejection.state(again), State::Open);
    }

    #[test]
    fn a_cancelled_probe_can_be_repeated() {
        let start = Instant::now();
        let mut ejection = Ejection::new(Policy { failures: 1, ..POLICY });
        let later = start + ejection.failed(start).unwrap();
        let is_probe = ejection.begin(later);
        ejection.cancelled(is_probe);
        assert_eq!(ejection.state(later), State::Probe);
    }

    #[test]
    fn failures_during_an_ejection_do_not_extend_it() {
        let start = Instant::now();
        let mut ejection = Ejection::new(Policy { failures: 1, ..POLICY });
        let until = start + ejection.failed(start).unwrap();
        assert_eq!(ejection.failed(start), None);
        assert_eq!(ejection.state(start), State::Ejected(until));
    }
}
