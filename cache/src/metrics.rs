//! Metrics of this crate.

use metrics::{describe_counter, describe_histogram};

/// Registers the help texts of this crate's metrics. Call it once at program start, after the recorder is installed.
pub fn describe_metrics() {
    describe_histogram!("godwit_cache_call_seconds", "How long calls to Redis took.");
    describe_counter!("godwit_cache_errors_total", "Calls to Redis that failed.");
    describe_counter!(
        "godwit_cache_members_total",
        "Lookups of a group's members in the cache, by whether they were found."
    );
    for known in ["true", "false"] {
        metrics::counter!("godwit_cache_members_total", "known" => known).increment(0);
    }
}

/// A call to Redis has ended.
#[cfg(feature = "redis")]
pub(crate) fn call(call: &'static str, took: std::time::Duration, ok: bool) {
    metrics::histogram!("godwit_cache_call_seconds", "call" => call).record(took.as_secs_f64());
    // Start at 0. Otherwise an alert on an increase would miss the first event.
    metrics::counter!("godwit_cache_errors_total", "call" => call).increment((!ok).into());
}

/// Members of a group were looked up.
pub(crate) fn members(known: bool) {
    metrics::counter!("godwit_cache_members_total", "known" => if known { "true" } else { "false" })
        .increment(1);
}
