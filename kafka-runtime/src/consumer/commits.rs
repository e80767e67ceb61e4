//! One commit at a time: the hook, then the offsets.

use crate::BoxError;
use crate::error::Error;
use crate::source::{Offsets, Source};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Runs before offsets are committed.
pub(super) type BeforeCommit = Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

pub(super) struct Commits {
    source: Arc<dyn Source>,
    hook: Option<BeforeCommit>,
    timeout: Duration,
    running: Option<BoxFuture<'static, Result<Offsets, Error>>>,
}

impl Commits {
    pub(super) fn new(source: Arc<dyn Source>, timeout: Duration) -> Self {
        Self { source, hook: None, timeout, running: None }
    }

    pub(super) fn set_hook(&mut self, hook: BeforeCommit) {
        self.hook = Some(hook);
    }

    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins to commit, unless there is nothing to commit. The offsets were read before the hook runs: what is done
    /// meanwhile is not covered by it and waits for the next commit.
    pub(super) fn begin(&mut self, offsets: Offsets) {
        if offsets.is_empty() {
            return;
        }
        let (source, hook, timeout) = (Arc::clone(&self.source), self.hook.clone(), self.timeout);
        self.running = Some(Box::pin(async move {
            let work = async {
                if let Some(hook) = hook {
                    hook().await.map_err(Error::Hook)?;
                }
                source.commit(offsets.clone()).await
            };
            tokio::time::timeout(timeout, work).await.unwrap_or(Err(Error::TimedOut("commit")))?;
            Ok(offsets)
        }));
    }

    /// The outcome of the commit that is running; waits for ever if there is none. May be dropped while waiting.
    pub(super) async fn finished(&mut self) -> Result<Offsets, Error> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let result = running.await;
        self.running = None;
        result
    }
}
