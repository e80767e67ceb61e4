//! The signal to stop, and its deadline.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Signals to all tasks that the process stops. Clones share one state.
#[derive(Clone, Debug)]
pub struct Drain {
    begun: CancellationToken,
    /// The deadline has passed: tasks that still run are dropped.
    ended: CancellationToken,
    reason: Arc<OnceLock<String>>,
    limit: Duration,
}

impl Drain {
    /// A drain that has not begun. Once it has, all work must finish within `limit`.
    pub fn new(limit: Duration) -> Self {
        let ended = CancellationToken::new();
        Self { begun: ended.child_token(), ended, reason: Arc::default(), limit }
    }

    /// Begins the drain and logs the reason. Later calls have no effect.
    pub fn begin(&self, reason: impl Into<String>) {
        if self.reason.set(reason.into()).is_ok() {
            tracing::info!(reason = self.reason(), "stopping");
            self.begun.cancel();
        }
    }

    /// Ends the drain immediately: tasks that still run are dropped.
    pub fn end(&self) {
        self.begin("immediate stop requested");
        self.ended.cancel();
    }

    /// Waits until the drain has begun.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Waits until the drain has ended: tasks that still run are dropped.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whether the drain has begun.
    pub fn is_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// A token that is cancelled when the drain begins.
    pub fn token(&self) -> CancellationToken {
        self.begun.clone()
    }

    /// Why the drain has begun; empty until then.
    pub fn reason(&self) -> &str {
        self.reason.get().map_or("", String::as_str)
    }

    /// The time within which a drain that has begun must finish.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}
