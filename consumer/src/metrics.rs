//! Metrics of this crate.

use metrics::{describe_counter, describe_histogram};
use std::time::Duration;

/// Registers the help texts of this crate's metrics. Call it once at program start, after the recorder is installed.
pub fn describe_metrics() {
    describe_counter!("godwit_consumer_entries_total", "Entries handled, by outcome.");
    describe_counter!("godwit_consumer_receivers_total", "Receivers of pushes, connected or not.");
    describe_counter!(
        "godwit_consumer_push_failures_total",
        "Failed pushes. Their receivers find out with their next heartbeat."
    );
    describe_histogram!("godwit_consumer_batch_records", "Records per batch.");
    describe_histogram!("godwit_consumer_batch_seconds", "Duration of a batch: save, receiver seqs, push.");
    describe_histogram!(
        "godwit_consumer_delay_seconds",
        "Age of the oldest message of a save when it has been pushed, since a gateway accepted it."
    );
    // Start at 0. Otherwise an alert on an increase would miss the first event.
    metrics::counter!("godwit_consumer_push_failures_total").increment(0);
}

/// The outcome of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EntryOutcome {
    /// Stored by this save.
    Stored,
    /// Stored by an earlier save.
    Duplicate,
    /// A forbidden group change, or a message to a missing group.
    Rejected,
    /// The record is not an entry.
    Unreadable,
}

/// Counts handled entries.
pub(crate) fn entries(outcome: EntryOutcome, count: u64) {
    let outcome = match outcome {
        EntryOutcome::Stored => "stored",
        EntryOutcome::Duplicate => "duplicate",
        EntryOutcome::Rejected => "rejected",
        EntryOutcome::Unreadable => "unreadable",
    };
    metrics::counter!("godwit_consumer_entries_total", "outcome" => outcome).increment(count);
}

/// Counts a push and its receivers.
pub(crate) fn push(receivers: usize, ok: bool) {
    metrics::counter!("godwit_consumer_receivers_total").increment(receivers as u64);
    if !ok {
        metrics::counter!("godwit_consumer_push_failures_total").increment(1);
    }
}

/// Records a handled batch.
pub(crate) fn batch(records: usize, took: Duration) {
    metrics::histogram!("godwit_consumer_batch_records").record(records as f64);
    metrics::histogram!("godwit_consumer_batch_seconds").record(took.as_secs_f64());
}

/// Records the age of the oldest message of a segment.
pub(crate) fn delay(milliseconds: i64) {
    metrics::histogram!("godwit_consumer_delay_seconds").record(milliseconds.max(0) as f64 / 1_000.0);
}
