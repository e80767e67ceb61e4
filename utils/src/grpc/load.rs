//! The load of an endpoint: Peak-EWMA of its latency times the calls in flight.
//!
//! `tower::load::PeakEwma` does not fit: it also measures calls that fail fast, does not penalize cancelled calls, and
//! can't be reset when an endpoint works again.

use std::time::Duration;
use tokio::time::Instant;

/// Time constant of the decay: after this time a measurement has a third (1/e) of its weight.
const DECAY: Duration = Duration::from_secs(10);
/// Assumed latency of an unmeasured endpoint with a call in flight. So it gets one call first, not all of them.
const ASSUMED_LATENCY: Duration = Duration::from_secs(1);

/// A latency estimate that rises immediately and falls slowly, so that one slow response already diverts calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// The latency in seconds, and the time of the measurement.
    latency: Option<(f64, Instant)>,
    in_flight: u32,
}

impl Load {
    pub(super) fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// Records the end of a call. The latency is recorded separately, by [`Load::measure`].
    pub(super) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Records the latency of a call.
    pub(super) fn measure(&mut self, latency: Duration, now: Instant) {
        let measured = latency.as_secs_f64();
        let latency = match self.latency {
            Some((known, at)) if measured < known => {
                let weight = weight(at, now);
                known * weight + measured * (1.0 - weight)
            }
            _ => measured,
        };
        self.latency = Some((latency, now));
    }

    /// Discards outdated measurements.
    pub(super) fn reset(&mut self) {
        self.latency = None;
    }

    /// Estimated seconds until a new call would get its response. Useful only for comparisons.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        match self.latency {
            Some((latency, at)) => latency * weight(at, now) * f64::from(self.in_flight + 1),
            None => ASSUMED_LATENCY.as_secs_f64() * f64::from(self.in_flight),
        }
    }
}

fn weight(at: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(at).as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_response_counts_immediately_and_decays_slowly() {
        let start = Instant::now();
        let mut load = Load::default();
        load.measure(Duration::from_millis(1), start);
        let quick = load.cost(start);
        load.measure(Duration::from_millis(100), start);
        let slow = load.cost(start);
        assert!(slow > quick * 99.0);
        load.measure(Duration::from_millis(1), start + Duration::from_millis(10));
        assert!(load.cost(start) > slow * 0.9);
        assert!(load.cost(start + DECAY * 5) < slow * 0.01);
    }

    #[test]
    fn an_unmeasured_endpoint_gets_one_call_first() {
        let now = Instant::now();
        let (mut measured, mut unmeasured) = (Load::default(), Load::default());
        measured.measure(Duration::from_millis(1), now);
        assert!(unmeasured.cost(now) < measured.cost(now));
        unmeasured.begin();
        assert!(unmeasured.cost(now) > measured.cost(now));
        unmeasured.end();
        assert!(unmeasured.cost(now) < measured.cost(now));
    }

    #[test]
    fn calls_in_flight_increase_the_cost() {
        let now = Instant::now();
        let mut load = Load::default();
        load.measure(Duration::from_millis(10), now);
        let idle = load.cost(now);
        load.begin();
        assert!((load.cost(now) / idle - 2.0).abs() < 1e-9);
    }
}
