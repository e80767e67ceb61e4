//! What is counted and timed.

use abi::v1::{SaveOutcome, SaveResult};
use metrics::{describe_counter, describe_histogram};
use std::time::Duration;

/// Tells the metrics recorder of this process what the metrics of this crate mean. For whoever starts a program, before they
/// are counted.
pub fn describe_metrics() {
    describe_counter!("godwit_db_service_entries_total", "Entries that were to be saved, by outcome.");
    describe_histogram!("godwit_db_service_save_seconds", "How long saves of a batch took.");
    describe_histogram!(
        "godwit_db_service_pool_wait_seconds",
        "How long calls waited for a connection to PostgreSQL."
    );
    describe_counter!(
        "godwit_db_service_retries_total",
        "Transactions of PostgreSQL that met another one and were made again."
    );
    describe_counter!("godwit_db_service_commits_total", "Transactions of the embedded store.");
    describe_counter!(
        "godwit_db_service_committed_calls_total",
        "Calls in the transactions of the embedded store."
    );
    describe_histogram!(
        "godwit_db_service_commit_seconds",
        "How long transactions of the embedded store took."
    );
    // From 0 on: an alert sees a rise, not a first value.
    metrics::counter!("godwit_db_service_retries_total").increment(0);
}

/// A batch was saved within `took`.
pub(crate) fn saved(results: &[SaveResult], took: Duration) {
    let count = |outcome: SaveOutcome| {
        u64::try_from(results.iter().filter(|result| result.outcome() == outcome).count()).unwrap_or(u64::MAX)
    };
    for (label, outcome) in [
        ("stored", SaveOutcome::Stored),
        ("duplicate", SaveOutcome::Duplicate),
        ("rejected", SaveOutcome::Rejected),
    ] {
        metrics::counter!("godwit_db_service_entries_total", "outcome" => label).increment(count(outcome));
    }
    metrics::histogram!("godwit_db_service_save_seconds").record(took.as_secs_f64());
}

/// A call got a connection to PostgreSQL, or gave up, after `took`.
#[cfg(feature = "postgres")]
pub(crate) fn waited_for_connection(took: Duration) {
    metrics::histogram!("godwit_db_service_pool_wait_seconds").record(took.as_secs_f64());
}

/// A transaction of PostgreSQL met another one and is made again.
#[cfg(feature = "postgres")]
pub(crate) fn retried() {
    metrics::counter!("godwit_db_service_retries_total").increment(1);
}

/// A transaction of the embedded store took `took`, for so many calls.
#[cfg(feature = "sqlite")]
pub(crate) fn committed(calls: usize, took: Duration) {
    metrics::counter!("godwit_db_service_commits_total").increment(1);
    metrics::counter!("godwit_db_service_committed_calls_total")
        .increment(u64::try_from(calls).unwrap_or(u64::MAX));
    metrics::histogram!("godwit_db_service_commit_seconds").record(took.as_secs_f64());
}
