//! The task of one partition: batch after batch, each until it is done.

use super::ConsumerConfig;
use super::dead_letter::DeadLetters;
use super::handler::{Handler, HandlerError, Outcome};
use crate::metrics::Consumed;
use crate::record::{Batch, TopicPartition};
use crate::source::Queue;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What all workers are made from.
#[derive(Clone)]
pub(super) struct WorkerContext<H> {
    pub(super) handler: H,
    pub(super) dead_letters: DeadLetters,
    pub(super) config: ConsumerConfig,
    /// Told when a batch is done.
    pub(super) progress: Arc<Notify>,
}

/// Owns the task of a partition: it ends with this.
pub(super) struct Worker {
    queue: Arc<Queue>,
    finish: CancellationToken,
    task: JoinSet<()>,
    committed: i64,
}

impl Worker {
    pub(super) fn start<H: Handler>(
        partition: TopicPartition,
        queue: Arc<Queue>,
        context: &WorkerContext<H>,
    ) -> Self {
        let finish = CancellationToken::new();
        let run = Run {
            metrics: Consumed::new(&partition.topic),
            partition,
            queue: Arc::clone(&queue),
            finish: finish.clone(),
            handler: context.handler.clone(),
            context: context.clone(),
        };
        let mut task = JoinSet::new();
        task.spawn(run.run());
        Self { committed: queue.done(), queue, finish, task }
    }

    /// Asks it to end after the batch that is in flight; one that is waiting to be tried again is abandoned.
    pub(super) fn finish(&self) {
        self.finish.cancel();
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) {
        while let Some(result) = self.task.join_next().await {
            if let Err(error) = result {
                tracing::error!(%error, "a partition's worker failed");
            }
        }
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

struct Run<H> {
    partition: TopicPartition,
    queue: Arc<Queue>,
    finish: CancellationToken,
    handler: H,
    context: WorkerContext<H>,
    metrics: Consumed,
}

impl<H: Handler> Run<H> {
    async fn run(mut self) {
        let ConsumerConfig { max_records, max_bytes, .. } = self.context.config;
        loop {
            let records = tokio::select! {
                biased;
                () = self.finish.cancelled() => return,
                records = self.queue.next_batch(max_records, max_bytes) => records,
            };
            let Some(records) = records else { return };
            let Some(last) = records.last() else { continue };
            let next = last.offset + 1;
            let TopicPartition { topic, partition } = self.partition.clone();
            let mut batch = Batch { topic, partition, records, attempt: 1 };
            if !self.handle(&mut batch).await {
                return;
            }
            self.metrics.batches.increment(1);
            self.metrics.records.increment(batch.records.len() as u64);
            self.queue.set_done(next);
            self.context.progress.notify_one();
        }
    }

    /// Tries until the batch is done; `false` if it was abandoned because the worker is to end.
    async fn handle(&mut self, batch: &mut Batch) -> bool {
        let backoff = self.context.config.backoff;
        let outcome = loop {
            let error = match self.attempt(batch.clone()).await {
                Ok(outcome) => break outcome,
                Err(error) => error,
            };
            self.metrics.retries.increment(1);
            let delay = backoff.delay(batch.attempt);
            tracing::warn!(
                partition = %self.partition, first_offset = batch.records.first().map(|record| record.offset),
                records = batch.records.len(), attempt = batch.attempt, delay_ms = delay.as_millis() as u64,
                error = &error as &dyn std::error::Error, "batch failed, trying again"
            );
            tokio::select! {
                biased;
                () = self.finish.cancelled() => return false,
                () = tokio::time::sleep(delay) => batch.attempt = batch.attempt.saturating_add(1),
            }
        };
        if outcome.rejected.is_empty() {
            return true;
        }
        // Not cut short when the worker is to end: whoever waits for that has a deadline.
        self.context.dead_letters.bury(batch, &outcome.rejected, backoff).await;
        self.metrics.dead_letters.increment(outcome.rejected.len() as u64);
        true
    }

    async fn attempt(&mut self, batch: Batch) -> Result<Outcome, HandlerError> {
        let records = batch.records.len();
        let handler = &mut self.handler;
        let call = async { handler.ready().await?.call(batch).await };
        let Ok(result) = AssertUnwindSafe(call).catch_unwind().await else {
            // It may have left itself in any state.
            self.handler = self.context.handler.clone();
            return Err(HandlerError::new("panic"));
        };
        let outcome = result?;
        match outcome.rejected.iter().find(|rejected| rejected.index >= records) {
            Some(_) => Err(HandlerError::new("rejected a record that is not in the batch")),
            None => Ok(outcome),
        }
    }
}
