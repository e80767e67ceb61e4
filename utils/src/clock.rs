//! Wall-clock time, in the unit of messages' timestamps.

use std::time::SystemTime;

/// Milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
