//! Helpers for the tests of this crate.

use std::time::{Duration, Instant};

/// Polls a condition until it holds. Panics after ten seconds.
pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(10), "the condition did not hold within 10 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
