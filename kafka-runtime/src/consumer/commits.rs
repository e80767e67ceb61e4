//! Commits, one at a time: first the hook, then the offsets.

use crate::BoxError;
use crate::error::Error;
use crate::panic::message;
use crate::source::{Offsets, Source};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The hook that runs before offsets are committed.
pub(super) type BeforeCommit = Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;

/// The result of a commit.
pub(super) struct Committed {
    pub(super) offsets: Offsets,
    pub(super) result: Result<(), Error>,
}

pub(super) struct Committer {
    source: Arc<dyn Source>,
    hook: Option<BeforeCommit>,
    timeout: Duration,
    running: Option<BoxFuture<'static, Committed>>,
}

impl Committer {
    pub(super) fn new(source: Arc<dyn Source>, hook: Option<BeforeCommit>, timeout: Duration) -> Self {
        Self { source, hook, timeout, running: None }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Starts a commit if there are offsets. The caller reads the offsets before the hook runs, because the hook covers only
    /// records that were done by then. Later ones are part of the next commit.
    pub(super) fn start(&mut self, offsets: Offsets) {
        self.start_until(offsets, Instant::now() + self.timeout);
    }

    /// Like [`start`](Self::start), with a deadline instead of the configured timeout.
    pub(super) fn start_until(&mut self, offsets: Offsets, deadline: Instant) {
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
                Ok(Err(panic)) => Err(Error::Hook(format!("it panicked: {}", message(&*panic)).into())),
                Err(_) => Err(Error::TimedOut("commit")),
            };
            Committed { offsets, result }
        }));
    }

    /// Drops the running commit. If its hook has not returned, the commit is never sent.
    pub(super) fn abandon(&mut self) {
        self.running = None;
    }

    /// Waits for the result of the running commit, forever if there is none. Cancel-safe.
    pub(super) async fn finished(&mut self) -> Committed {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let committed = running.await;
        self.running = None;
        committed
    }
}
