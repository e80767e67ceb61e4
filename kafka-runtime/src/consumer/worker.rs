//! The task of one partition, as its owner sees it.

use super::lane::{Lane, Shared};
use crate::metrics::Consumed;
use crate::panic::words;
use crate::record::TopicPartition;
use crate::source::Queue;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a worker does with its partition until it is to end: the kind of handler is known only there.
pub(super) type Work = Arc<dyn Fn(Lane) -> BoxFuture<'static, ()> + Send + Sync>;

/// Owns the task of a partition: it ends with this.
pub(super) struct Worker {
    queue: Arc<Queue>,
    finish: CancellationToken,
    task: JoinSet<()>,
    committed: i64,
}

impl Worker {
    pub(super) fn start(
        partition: TopicPartition,
        queue: Arc<Queue>,
        shared: &Arc<Shared>,
        work: &Work,
    ) -> Self {
        let finish = CancellationToken::new();
        let span = tracing::info_span!(
            "partition",
            topic = &*partition.topic,
            partition = partition.partition,
            consumer = &*shared.name
        );
        let lane = Lane {
            metrics: Consumed::new(&shared.name, &partition.topic),
            partition,
            queue: Arc::clone(&queue),
            finish: finish.clone(),
            shared: Arc::clone(shared),
        };
        let (work, failed) = (Arc::clone(work), shared.failed.clone());
        let mut task = JoinSet::new();
        let work = async move {
            let ended = AssertUnwindSafe(async { work(lane).await }).catch_unwind().await;
            if let Err(panic) = ended {
                tracing::error!(panic = words(&*panic), "the worker of a partition panicked");
                failed.cancel();
            }
        };
        task.spawn(work.instrument(span));
        Self { committed: queue.done(), queue, finish, task }
    }

    /// Asks it to end after what is in flight; what is waiting to be tried again is abandoned. `false` if it was asked before.
    pub(super) fn finish(&self) -> bool {
        let is_first = !self.finish.is_cancelled();
        self.finish.cancel();
        is_first
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) {
        while self.task.join_next().await.is_some() {}
    }

    /// Ends it at its next await, and waits until it has, though not for ever: a handler may block its thread.
    pub(super) async fn abort(mut self) {
        if tokio::time::timeout(ABORT_TIMEOUT, self.task.shutdown()).await.is_err() {
            tracing::error!("a handler blocks its thread and can't be stopped");
        }
    }

    /// The offset to commit, if something was done since the last commit.
    pub(super) fn uncommitted(&self) -> Option<i64> {
        let done = self.queue.done();
        (done > self.committed).then_some(done)
    }

    pub(super) fn committed(&mut self, next: i64) {
        self.committed = self.committed.max(next);
    }
}
