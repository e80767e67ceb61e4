//! What is counted and timed.

use abi::v1::{SaveOutcome, SaveResult};
use std::time::Duration;

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

/// A transaction of PostgreSQL met another one and is made again.
pub(crate) fn retried() {
    metrics::counter!("godwit_db_service_retries_total").increment(1);
}

/// A transaction of the embedded store took `took`, for so many calls.
pub(crate) fn committed(calls: usize, took: Duration) {
    metrics::counter!("godwit_db_service_commits_total").increment(1);
    metrics::counter!("godwit_db_service_committed_calls_total")
        .increment(u64::try_from(calls).unwrap_or(u64::MAX));
    metrics::histogram!("godwit_db_service_commit_seconds").record(took.as_secs_f64());
}
