//! Waiting for something to become true, in place of sleeping for as long as it usually takes.

use crate::PATIENCE;
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Tries again until the attempt succeeds, and gives its value.
///
/// # Errors
/// The last attempt's error, with `what` was waited for, once [`PATIENCE`] is over.
pub async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(5);
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("after {PATIENCE:?} still not: {what}"));
            }
            Err(_) => sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
