//! Metrics of this crate.

use std::time::Duration;

/// A call to Redis ended.
pub(crate) fn call(call: &'static str, took: Duration, ok: bool) {
    metrics::histogram!("godwit_cache_call_seconds", "call" => call).record(took.as_secs_f64());
    if !ok {
        metrics::counter!("godwit_cache_errors_total", "call" => call).increment(1);
    }
}

/// Members of a group were looked up.
pub(crate) fn members(known: bool) {
    metrics::counter!("godwit_cache_members_total", "known" => if known { "true" } else { "false" })
        .increment(1);
}
