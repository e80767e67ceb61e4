//! The wish to stop, and the end of patience.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Tells everybody that the process stops. A clone is the same drain.
#[derive(Clone, Debug)]
pub struct Drain {
    begun: CancellationToken,
    /// Patience is over: what still runs is dropped.
    ended: CancellationToken,
    reason: Arc<OnceLock<String>>,
    limit: Duration,
}

impl Drain {
    /// Not begun. Once it is, everything has `limit` to finish.
    pub fn new(limit: Duration) -> Self {
        let ended = CancellationToken::new();
        Self { begun: ended.child_token(), ended, reason: Arc::default(), limit }
    }

    /// Begins, for a reason that is logged. Later calls do nothing.
    pub fn begin(&self, reason: impl Into<String>) {
        if self.reason.set(reason.into()).is_ok() {
            tracing::info!(reason = self.reason(), "stopping");
            self.begun.cancel();
        }
    }

    /// Ends at once: tasks that still run are dropped.
    pub fn end(&self) {
        self.begin("told to end at once");
        self.ended.cancel();
    }

    /// Returns once begun.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// Returns once patience is over.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whether it has begun.
    pub fn is_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// A token that is cancelled when this begins, for what takes a token.
    pub fn token(&self) -> CancellationToken {
        self.begun.clone()
    }

    /// Why it has begun; empty before that.
    pub fn reason(&self) -> &str {
        self.reason.get().map_or("", String::as_str)
    }

    /// How long everything has once it has begun.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}
