//! Metrics of this crate.

use metrics::{describe_counter, describe_histogram};
use std::time::Duration;

/// Tells the metrics recorder of this process what the metrics of this crate mean. For whoever starts a program, before they
/// are counted.
pub fn describe_metrics() {
    describe_counter!("godwit_pusher_deliveries_total", "Deliveries to gateways, by how they ended.");
    describe_histogram!("godwit_pusher_delivery_seconds", "How long gateways took to answer a delivery.");
    describe_counter!("godwit_pusher_users_total", "Users of pushes, and whether any gateway held them.");
    // From 0 on: an alert sees a rise, not a first value.
    for outcome in [Outcome::Taken, Outcome::Failed, Outcome::Late, Outcome::Rested] {
        metrics::counter!("godwit_pusher_deliveries_total", "outcome" => outcome.name()).increment(0);
    }
}

/// How a delivery to a gateway ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// The gateway has it.
    Taken,
    /// The gateway can't be reached or refused it.
    Failed,
    /// The gateway did not answer in time.
    Late,
    /// The gateway was late lately and was not asked.
    Rested,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Rested => "rested",
        }
    }
}

/// A delivery to a gateway ended.
pub(crate) fn delivery(outcome: Outcome, took: Duration) {
    metrics::counter!("godwit_pusher_deliveries_total", "outcome" => outcome.name()).increment(1);
    metrics::histogram!("godwit_pusher_delivery_seconds").record(took.as_secs_f64());
}

/// So many users were looked up, and so many of them are connected somewhere.
pub(crate) fn users(all: usize, online: usize) {
    metrics::counter!("godwit_pusher_users_total", "online" => "true").increment(online as u64);
    metrics::counter!("godwit_pusher_users_total", "online" => "false").increment((all - online) as u64);
}
