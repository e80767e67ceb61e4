//! The task of one partition, as its owner sees it.

use super::context::{Shared, WorkerContext};
use crate::metrics::Consumed;
use crate::panic::message;
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

/// The work loop of a partition. It hides the type of the handler.
pub(super) type Work = Arc<dyn Fn(WorkerContext) -> BoxFuture<'static, ()> + Send + Sync>;

/// Owns the task of a partition. Dropping it aborts the task.
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
        let context = WorkerContext {
            metrics: Consumed::new(&shared.name, &partition.topic),
            partition,
            queue: Arc::clone(&queue),
            finish: finish.clone(),
            shared: Arc::clone(shared),
        };
        let (work, failed) = (Arc::clone(work), shared.failed.clone());
        let mut task = JoinSet::new();
        let work = async move {
            let ended = AssertUnwindSafe(async { work(context).await }).catch_unwind().await;
            if let Err(panic) = ended {
                tracing::error!(panic = message(&*panic), "the worker of a partition panicked");
                failed.cancel();
            }
        };
        task.spawn(work.instrument(span));
        Self { committed: queue.done(), queue, finish, task }
    }

    /// Tells the worker to end after the records in flight. Records that wait for a retry are abandoned. Returns `false` if this
    /// is not the first call.
    pub(super) fn finish(&self) -> bool {
        let is_first = !self.finish.is_cancelled();
        self.finish.cancel();
        is_first
    }

    /// Waits until the worker has ended.
    pub(super) async fn ended(&mut self) {
        while self.task.join_next().await.is_some() {}
    }

    /// Aborts the worker at its next await point and waits for its end. The wait has a limit, because a handler may block its
    /// thread.
    pub(super) async fn abort(mut self) {
        if tokio::time::timeout(ABORT_TIMEOUT, self.task.shutdown()).await.is_err() {
            tracing::error!("a handler blocks its thread and cannot be aborted");
        }
    }

    /// The offset to commit, if the worker has made progress since the last commit.
    pub(super) fn uncommitted(&self) -> Option<i64> {
        let done = self.queue.done();
        (done > self.committed).then_some(done)
    }

    pub(super) fn set_committed(&mut self, next: i64) {
        self.committed = self.committed.max(next);
    }
}
