//! Metrics of this crate.

use metrics::{describe_counter, describe_histogram};
use std::time::Duration;

/// Tells the metrics recorder of this process what the metrics of this crate mean. For whoever starts a program, before they
/// are counted.
pub fn describe_metrics() {
    describe_counter!(
        "godwit_consumer_entries_total",
        "Entries of the log that were handled, by what became of them."
    );
    describe_counter!(
        "godwit_consumer_receivers_total",
        "Users that something was pushed to, connected or not."
    );
    describe_counter!(
        "godwit_consumer_push_failures_total",
        "Pushes that failed; devices learn by heartbeat."
    );
    describe_histogram!("godwit_consumer_batch_records", "Records per batch.");
    describe_histogram!("godwit_consumer_batch_seconds", "How long batches took: save, counters, push.");
    describe_histogram!(
        "godwit_consumer_delay_seconds",
        "Age of the oldest message of a save when it had been pushed, counted from when a gateway took it."
    );
    // Begins with 0 here: an alert sees a rise, not a first value.
    metrics::counter!("godwit_consumer_push_failures_total").increment(0);
}

/// What became of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entries {
    /// Stored now.
    Stored,
    /// Stored before.
    Duplicate,
    /// A group change that the rules don't allow, or a message to nowhere.
    Rejected,
    /// Not an entry at all.
    Unreadable,
}

/// So many entries were handled.
pub(crate) fn entries(outcome: Entries, count: u64) {
    let outcome = match outcome {
        Entries::Stored => "stored",
        Entries::Duplicate => "duplicate",
        Entries::Rejected => "rejected",
        Entries::Unreadable => "unreadable",
    };
    metrics::counter!("godwit_consumer_entries_total", "outcome" => outcome).increment(count);
}

/// A push was made to so many users, or failed.
pub(crate) fn push(receivers: usize, ok: bool) {
    metrics::counter!("godwit_consumer_receivers_total").increment(receivers as u64);
    if !ok {
        metrics::counter!("godwit_consumer_push_failures_total").increment(1);
    }
}

/// A batch was handled.
pub(crate) fn batch(records: usize, took: Duration) {
    metrics::histogram!("godwit_consumer_batch_records").record(records as f64);
    metrics::histogram!("godwit_consumer_batch_seconds").record(took.as_secs_f64());
}

/// The oldest message of a batch was taken by a gateway so long before it was delivered.
pub(crate) fn delay(milliseconds: i64) {
    metrics::histogram!("godwit_consumer_delay_seconds").record(milliseconds.max(0) as f64 / 1_000.0);
}
