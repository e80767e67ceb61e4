//! Metrics of this crate.

use metrics::{describe_counter, describe_histogram};
use std::time::Duration;

/// Registers the help texts of this crate's metrics. Call it once at program start, after the recorder is installed.
pub fn describe_metrics() {
    describe_counter!("godwit_pusher_deliveries_total", "Deliveries to gateways, by outcome.");
    describe_histogram!("godwit_pusher_delivery_seconds", "Time that gateways took to answer a delivery.");
    describe_counter!(
        "godwit_pusher_users_total",
        "Receivers of pushes, by whether any gateway held a connection of theirs."
    );
    // Start at 0. Otherwise an alert on an increase would miss the first event.
    for outcome in [Outcome::Accepted, Outcome::Failed, Outcome::TimedOut, Outcome::Skipped] {
        metrics::counter!("godwit_pusher_deliveries_total", "outcome" => outcome.name()).increment(0);
    }
}

/// How a delivery to a gateway ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The gateway accepted it.
    Accepted,
    /// The gateway could not be reached, or returned an error.
    Failed,
    /// The gateway did not answer in time.
    TimedOut,
    /// The gateway was skipped, because an earlier delivery timed out.
    Skipped,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "taken",
            Self::Failed => "failed",
            Self::TimedOut => "late",
            Self::Skipped => "rested",
        }
    }
}

/// Records the end of a delivery to a gateway.
pub(crate) fn delivery(outcome: Outcome, took: Duration) {
    metrics::counter!("godwit_pusher_deliveries_total", "outcome" => outcome.name()).increment(1);
    metrics::histogram!("godwit_pusher_delivery_seconds").record(took.as_secs_f64());
}

/// Records the number of users that were looked up, and of those with a connection.
pub(crate) fn users(all: usize, online: usize) {
    metrics::counter!("godwit_pusher_users_total", "online" => "true").increment(online as u64);
    metrics::counter!("godwit_pusher_users_total", "online" => "false").increment((all - online) as u64);
}
