//! How loaded an endpoint is: Peak-EWMA of its latency times the calls in flight.

use std::time::Duration;
use tokio::time::Instant;

/// After this long, what was measured counts a third.
const DECAY: Duration = Duration::from_secs(10);
/// What an endpoint without a measurement is taken for once a call is on its way to it: it gets one, not all of them.
const UNKNOWN: Duration = Duration::from_secs(1);

/// Latency that follows a rise at once and a fall slowly, so that one slow answer is enough to be careful.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Seconds, and when it was measured.
    latency: Option<(f64, Instant)>,
    in_flight: u32,
}

impl Load {
    pub(super) fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A call has ended without telling anything about the latency.
    pub(super) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A call took so long, or at least so long.
    pub(super) fn measure(&mut self, took: Duration, now: Instant) {
        let took = took.as_secs_f64();
        let latency = match self.latency {
            Some((known, at)) if took < known => {
                let weight = weight(at, now);
                known * weight + took * (1.0 - weight)
            }
            _ => took,
        };
        self.latency = Some((latency, now));
    }

    /// Forgets what was measured: it was of another time.
    pub(super) fn forget(&mut self) {
        self.latency = None;
    }

    /// Seconds of work before a call to this endpoint would be answered; only good for comparing.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        match self.latency {
            Some((latency, at)) => latency * weight(at, now) * f64::from(self.in_flight + 1),
            None => UNKNOWN.as_secs_f64() * f64::from(self.in_flight),
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
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
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
    fn an_unknown_endpoint_gets_one_call_first() {
        let now = Instant::now();
        let (mut known, mut unknown) = (Load::default(), Load::default());
        known.measure(Duration::from_millis(1), now);
        assert!(unknown.cost(now) < known.cost(now));
        unknown.begin();
        assert!(unknown.cost(now) > known.cost(now));
        unknown.end();
        assert!(unknown.cost(now) < known.cost(now));
    }

    #[test]
    fn calls_in_flight_weigh() {
        let now = Instant::now();
        let mut load = Load::default();
        load.measure(Duration::from_millis(10), now);
        let idle = load.cost(now);
        load.begin();
        assert!((load.cost(now) / idle - 2.0).abs() < 1e-9);
    }
}
