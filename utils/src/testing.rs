//! What our own tests share.

use std::time::{Duration, Instant};

/// Tries until it holds, for at most ten seconds.
pub(crate) async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
