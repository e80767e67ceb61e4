//! One commit at a time: the hook, then the offsets.

use crate::BoxError;
use crate::error::Error;
use crate::panic::words;
use crate::source::{Offsets, Source};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Runs before offsets are committed.
pub(super) type BeforeCommit = Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// A commit that has ended.
pub(super) struct Committed {
    pub(super) offsets: Offsets,
    pub(super) result: Result<(), Error>,
}

pub(super) struct Commits {
    source: Arc<dyn Source>,
    hook: Option<BeforeCommit>,
    timeout: Duration,
    running: Option<BoxFuture<'static, Committed>>,
}

impl Commits {
    pub(super) fn new(source: Arc<dyn Source>, hook: Option<BeforeCommit>, timeout: Duration) -> Self {
        Self { source, hook, timeout, running: None }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins to commit, unless there is nothing to commit. The offsets were read before the hook runs: what is done
    /// meanwhile is not covered by it and waits for the next commit.
    pub(super) fn begin(&mut self, offsets: Offsets) {
        self.begin_until(offsets, Instant::now() + self.timeout);
    }

    /// The same, with another deadline than its own.
    pub(super) fn begin_until(&mut self, offsets: Offsets, deadline: Instant) {
        if offsets.is_empty() {
            return;
        }
        let (source, hook) = (Arc::clone(&self.source), self.hook.clone());
        self.running = Some(Box::pin(async move {
            let work = async {
                if let Some(hook) = hook {
                    hook().await.map_err(Error::Hook)?;
                }
                source.commit(offsets.clone()).await
            };
            let result = match tokio::time::timeout_at(deadline, AssertUnwindSafe(work).catch_unwind()).await
            {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(Error::Hook(format!("it panicked: {}", words(&*panic)).into())),
                Err(_) => Err(Error::TimedOut("commit")),
            };
            Committed { offsets, result }
        }));
    }

    /// Forgets the commit that is running. It is not sent any more if its hook still runs.
    pub(super) fn abandon(&mut self) {
        self.running = None;
    }

    /// The commit that was running; waits for ever if there is none. May be dropped while waiting.
    pub(super) async fn finished(&mut self) -> Committed {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let committed = running.await;
        self.running = None;
        committed
    }
}
