//! Endpoints that fail are left alone for a while.
//!
//! A balancer that goes by latency alone is drawn to an endpoint that fails fast. So after some failures in a row an
//! endpoint is out for a jittered time, which grows; then one call tries it, and decides.

use crate::backoff::Backoff;
use std::time::Duration;
use tokio::time::Instant;

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// Failures in a row.
    pub(super) after: u32,
    pub(super) first: Duration,
    pub(super) most: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// Takes calls.
    Open,
    /// Was ejected; takes one call, to see.
    Probe,
    /// Takes no calls until then.
    Ejected(Instant),
}

#[derive(Debug)]
pub(super) struct Ejection {
    after: u32,
    backoff: Backoff,
    failures: u32,
    until: Option<Instant>,
    probing: bool,
}

impl Ejection {
    pub(super) fn new(policy: Policy) -> Self {
        let backoff = Backoff::new(policy.first, policy.most);
        Self { after: policy.after, backoff, failures: 0, until: None, probing: false }
    }

    pub(super) fn state(&self, now: Instant) -> State {
        match self.until {
            None => State::Open,
            Some(until) if now >= until && !self.probing => State::Probe,
            // Somebody is trying it at this moment: as good as ejected until that call has ended.
            Some(until) => State::Ejected(until),
        }
    }

    /// A call begins. What it returns is given back to [`Ejection::release`] if the call ends without an outcome.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let probes = self.state(now) == State::Probe;
        self.probing |= probes;
        probes
    }

    /// A call was given up before it had an outcome.
    pub(super) fn release(&mut self, probed: bool) {
        if probed {
            self.probing = false;
        }
    }

    /// Returns whether the endpoint is back.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.probing = false;
        self.backoff.reset();
        self.until.take().is_some()
    }

    /// Returns for how long the endpoint is ejected, if this failure did that.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        let ejects = match self.until {
            None => self.failures >= self.after,
            // Calls from before the ejection, or made for want of another endpoint, don't lengthen it.
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

    const POLICY: Policy = Policy { after: 2, first: Duration::from_secs(1), most: Duration::from_secs(8) };

    #[test]
    fn failures_in_a_row_eject_and_one_call_decides() {
        let start = Instant::now();
        let mut ejection = Ejection::new(POLICY);
        assert_eq!(ejection.failed(start), None);
        ejection.succeeded();
        assert_eq!(ejection.failed(start), None, "not in a row");
        let pause = ejection.failed(start).unwrap();
        assert_eq!(ejection.state(start), State::Ejected(start + pause));

        let later = start + pause;
        assert_eq!(ejection.state(later), State::Probe);
        assert!(ejection.begin(later));
        assert!(matches!(ejection.state(later), State::Ejected(_)), "one call only");
        assert!(ejection.failed(later).is_some());
        let again = later + POLICY.most;
        assert!(ejection.begin(again));
        assert!(ejection.succeeded());
        assert_eq!(ejection.state(again), State::Open);
    }

    #[test]
    fn a_probe_that_is_given_up_can_be_made_again() {
        let start = Instant::now();
        let mut ejection = Ejection::new(Policy { after: 1, ..POLICY });
        let later = start + ejection.failed(start).unwrap();
        let probed = ejection.begin(later);
        ejection.release(probed);
        assert_eq!(ejection.state(later), State::Probe);
    }

    #[test]
    fn failures_while_ejected_don_t_lengthen_it() {
        let start = Instant::now();
        let mut ejection = Ejection::new(Policy { after: 1, ..POLICY });
        let until = start + ejection.failed(start).unwrap();
        assert_eq!(ejection.failed(start), None);
        assert_eq!(ejection.state(start), State::Ejected(until));
    }
}
