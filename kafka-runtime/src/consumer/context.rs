//! The state of a partition worker, common to all kinds of handlers.

use super::config::ConsumerConfig;
use super::handler::{HandlerError, Rejected};
use crate::dead_letters::DeadLetters;
use crate::error::Error;
use crate::metrics::{Consumed, Group};
use crate::observer::Observer;
use crate::record::{Delivered, Record, TopicPartition};
use crate::source::Queue;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// State that all workers of a consumer share.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) config: ConsumerConfig,
    pub(super) dead_letters: Option<DeadLetters>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) metrics: Group,
    /// Notified when a worker has made progress, so that the run loop schedules a commit.
    pub(super) progress: Notify,
    /// Cancelled when a worker panicked, or needs records again. The consumer must end then: the records that the worker had taken from
    /// the queue can only be read again from the start offset.
    pub(super) failed: CancellationToken,
    /// The partition that must be read again, and why. Empty after a panic.
    pub(super) failure: OnceLock<(TopicPartition, String)>,
}

impl Shared {
    /// The error with which the consumer ends after a failure of a worker.
    pub(super) fn failure(&self) -> Error {
        match self.failure.get().cloned() {
            Some((partition, reason)) => Error::Restart { partition, reason },
            None => Error::Panicked,
        }
    }

    /// Reports the result of a commit to the observer and the metrics.
    pub(super) fn report_commit(&self, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        self.observer.committed(&self.name, offsets, result);
        match result {
            Ok(()) => self.metrics.commits.increment(1),
            Err(_) => self.metrics.commit_failures.increment(1),
        }
    }
}

/// The worker's view of its partition, while this member owns it.
pub(super) struct WorkerContext {
    pub(super) partition: TopicPartition,
    pub(super) queue: Arc<Queue>,
    /// Cancelled when the worker must not start anything new.
    pub(super) finish: CancellationToken,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Consumed,
}

/// The reaction to a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextStep {
    /// The backoff is over: try again.
    Retry,
    /// Do not try again.
    GiveUp,
    /// The worker has to finish: leave the records to the next owner of the partition.
    Abandon,
}

impl WorkerContext {
    /// The next records within both limits; `None` if the worker has to finish. Cancel-safe.
    pub(super) async fn next_batch(&self, max_records: usize, max_bytes: usize) -> Option<Vec<Record>> {
        tokio::select! {
            biased;
            () = self.finish.cancelled() => None,
            records = self.queue.next_batch(max_records, max_bytes) => records,
        }
    }

    /// Like [`next_batch`](Self::next_batch), but waits up to the configured `batch_wait` for a full batch.
    pub(super) async fn next_full_batch(&self) -> Option<Vec<Record>> {
        let ConsumerConfig { max_records, max_bytes, batch_wait, .. } = self.shared.config;
        if !batch_wait.is_zero() {
            tokio::select! {
                biased;
                () = self.finish.cancelled() => return None,
                () = async {
                    self.queue.filled(1, 1).await;
                    // After a timeout the batch is handed over as it is.
                    let _ = tokio::time::timeout(batch_wait, self.queue.filled(max_records, max_bytes)).await;
                } => {}
            }
        }
        self.next_batch(max_records, max_bytes).await
    }

    /// Marks all records before `next` as done.
    pub(super) fn mark_done(&self, next: i64) {
        self.queue.set_done(next);
        self.shared.progress.notify_one();
    }

    /// Decides how to react to a failed attempt, and waits for the backoff before a retry. A single record is only given up if
    /// there is a dead-letter topic.
    pub(super) async fn after_failure(&self, failed: &impl Delivered, error: &HandlerError) -> NextStep {
        if error.is_restart() {
            let (partition, reason) = (self.partition.clone(), error.reason());
            tracing::error!(consumer = &*self.shared.name, %partition, reason, "the consumer ends, to start again");
            // Another worker may have failed before.
            drop(self.shared.failure.set((partition, reason)));
            self.shared.failed.cancel();
            return NextStep::Abandon;
        }
        let policy = self.shared.config.retry;
        let is_hopeless = !error.is_retryable() || policy.is_exhausted(failed.attempt());
        if is_hopeless && (failed.count() > 1 || self.shared.dead_letters.is_some()) {
            return NextStep::GiveUp;
        }
        let delay = policy.backoff.delay(failed.attempt());
        self.log_failure(failed, error, delay, is_hopeless);
        self.metrics.pauses.increment(1);
        tokio::select! {
            biased;
            () = self.finish.cancelled() => NextStep::Abandon,
            () = tokio::time::sleep(delay) => {
                self.metrics.retries.increment(1);
                NextStep::Retry
            }
        }
    }

    fn log_failure(&self, failed: &impl Delivered, error: &HandlerError, delay: Duration, is_hopeless: bool) {
        let (first_offset, records, attempt) = (failed.first_offset(), failed.count(), failed.attempt());
        let (consumer, partition) = (&*self.shared.name, &self.partition);
        let (delay_ms, error) = (delay.as_millis() as u64, error as &dyn std::error::Error);
        if is_hopeless {
            tracing::error!(
                consumer, %partition, first_offset, attempt, delay_ms, error,
                "record rejected but no dead-letter topic configured: the partition is stuck, trying again"
            );
        } else {
            tracing::warn!(
                consumer, %partition, first_offset, records, attempt, delay_ms, error,
                "handler failed, trying again"
            );
        }
    }

    /// Writes rejected records to the dead-letter topic and returns when all are confirmed. It ignores the `finish` token: the
    /// run loop that waits for this worker has a deadline.
    pub(super) async fn dead_letter(&self, records: &[Record], rejected: &[Rejected], attempts: u32) {
        let Some(dead_letters) = &self.shared.dead_letters else { return };
        dead_letters.write(records, rejected, attempts, self.shared.config.retry.backoff).await;
        self.metrics.dead_letters.increment(rejected.len() as u64);
    }
}
