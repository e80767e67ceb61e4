//! Waits for a condition instead of sleeping for a fixed time.

use crate::PATIENCE;
use anyhow::{Context as _, Result};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Retries until an attempt succeeds, and returns its value. `what` names the condition in the error.
///
/// # Errors
/// The error of the last attempt, after [`PATIENCE`].
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
