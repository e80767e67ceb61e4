//! Metrics of this crate.

use abi::v1::{SaveOutcome, SaveResult};
use metrics::{describe_counter, describe_histogram};
use std::time::Duration;

/// Registers the help texts of this crate's metrics. Call it once at program start, after the recorder is installed.
pub fn describe_metrics() {
    describe_counter!("godwit_db_service_entries_total", "Entries in save calls, by outcome.");
    describe_histogram!("godwit_db_service_save_seconds", "Duration of a call that saves a batch.");
    describe_histogram!(
        "godwit_db_service_pool_wait_seconds",
        "Time that calls waited for a connection to PostgreSQL."
    );
    describe_counter!(
        "godwit_db_service_retries_total",
        "Transactions in PostgreSQL that were retried after a conflict with another one."
    );
    describe_counter!("godwit_db_service_commits_total", "Transactions of the embedded store.");
    describe_counter!(
        "godwit_db_service_committed_calls_total",
        "Calls in the transactions of the embedded store."
    );
    describe_histogram!(
        "godwit_db_service_commit_seconds",
        "Duration of a transaction of the embedded store."
    );
    // Start at 0. Otherwise an alert on an increase would miss the first event.
    metrics::counter!("godwit_db_service_retries_total").increment(0);
}

/// Records a saved batch.
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

/// Records how long a call waited for a connection to PostgreSQL, whether it got one or not.
#[cfg(feature = "postgres")]
pub(crate) fn waited_for_connection(took: Duration) {
    metrics::histogram!("godwit_db_service_pool_wait_seconds").record(took.as_secs_f64());
}

/// Records the retry of a transaction in PostgreSQL.
#[cfg(feature = "postgres")]
pub(crate) fn retried() {
    metrics::counter!("godwit_db_service_retries_total").increment(1);
}

/// Records a transaction of the embedded store and the number of its calls.
#[cfg(feature = "sqlite")]
pub(crate) fn committed(calls: usize, took: Duration) {
    metrics::counter!("godwit_db_service_commits_total").increment(1);
    metrics::counter!("godwit_db_service_committed_calls_total")
        .increment(u64::try_from(calls).unwrap_or(u64::MAX));
    metrics::histogram!("godwit_db_service_commit_seconds").record(took.as_secs_f64());
}
