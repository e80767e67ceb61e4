//! What the task of one partition works with, whatever kind of handler it has.

use super::config::ConsumerConfig;
use super::handler::{HandlerError, Rejected};
use crate::dead_letters::DeadLetters;
use crate::error::Error;
use crate::metrics::{Consumed, Group};
use crate::observer::Observer;
use crate::record::{Delivered, Record, TopicPartition};
use crate::source::Queue;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What all lanes of a consumer share.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    pub(super) config: ConsumerConfig,
    pub(super) dead_letters: Option<DeadLetters>,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) metrics: Group,
    /// Told when something is done.
    pub(super) progress: Notify,
    /// Cancelled when a worker panicked: what it had taken can only be read again from where the group has committed.
    pub(super) failed: CancellationToken,
}

impl Shared {
    /// Says that a commit has ended.
    pub(super) fn committed(&self, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        self.observer.committed(&self.name, offsets, result);
        match result {
            Ok(()) => self.metrics.commits.increment(1),
            Err(_) => self.metrics.commit_failures.increment(1),
        }
    }
}

/// One partition, as long as this member owns it.
pub(super) struct Lane {
    pub(super) partition: TopicPartition,
    pub(super) queue: Arc<Queue>,
    /// Cancelled when nothing new may begin.
    pub(super) finish: CancellationToken,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Consumed,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Its wait is over: hand it over again.
    Again,
    /// It will not be tried again.
    GiveUp,
    /// Nothing new may begin: leave it to the next owner.
    Abandon,
}

impl Lane {
    /// What to handle next, at most so much; `None` when the task is to end. May be dropped while waiting.
    pub(super) async fn next_batch(&self, max_records: usize, max_bytes: usize) -> Option<Vec<Record>> {
        tokio::select! {
            biased;
            () = self.finish.cancelled() => None,
            records = self.queue.next_batch(max_records, max_bytes) => records,
        }
    }

    /// The same, but waits for a full batch for as long as is configured.
    pub(super) async fn next_full_batch(&self) -> Option<Vec<Record>> {
        let ConsumerConfig { max_records, max_bytes, batch_wait, .. } = self.shared.config;
        if !batch_wait.is_zero() {
            tokio::select! {
                biased;
                () = self.finish.cancelled() => return None,
                () = async {
                    self.queue.filled(1, 1).await;
                    // Past the wait it is handed over as it is.
                    let _ = tokio::time::timeout(batch_wait, self.queue.filled(max_records, max_bytes)).await;
                } => {}
            }
        }
        self.next_batch(max_records, max_bytes).await
    }

    /// Everything before `next` is done.
    pub(super) fn done(&self, next: i64) {
        self.queue.set_done(next);
        self.shared.progress.notify_one();
    }

    /// Decides what follows a failed attempt, and waits if it is to be tried again. A single record is given up only where
    /// there are dead letters to take it.
    pub(super) async fn after_failure(&self, failed: &impl Delivered, error: &HandlerError) -> Next {
        let policy = self.shared.config.retry;
        let is_hopeless = !error.is_retryable() || policy.is_used_up(failed.attempt());
        if is_hopeless && (failed.count() > 1 || self.shared.dead_letters.is_some()) {
            return Next::GiveUp;
        }
        let delay = policy.backoff.delay(failed.attempt());
        self.say(failed, error, delay, is_hopeless);
        self.metrics.pauses.increment(1);
        tokio::select! {
            biased;
            () = self.finish.cancelled() => Next::Abandon,
            () = tokio::time::sleep(delay) => {
                self.metrics.retries.increment(1);
                Next::Again
            }
        }
    }

    fn say(&self, failed: &impl Delivered, error: &HandlerError, delay: Duration, is_hopeless: bool) {
        let (first_offset, records, attempt) = (failed.first_offset(), failed.count(), failed.attempt());
        let (consumer, partition) = (&*self.shared.name, &self.partition);
        let (delay_ms, error) = (delay.as_millis() as u64, error as &dyn std::error::Error);
        if is_hopeless {
            tracing::error!(
                consumer, %partition, first_offset, attempt, delay_ms, error,
                "record rejected, and there are no dead letters to take it: its partition waits"
            );
        } else {
            tracing::warn!(
                consumer, %partition, first_offset, records, attempt, delay_ms, error,
                "handler failed, trying again"
            );
        }
    }

    /// Returns when the dead letters have all of `rejected`. Not cut short when the task is to end: whoever waits for that
    /// has a deadline.
    pub(super) async fn bury(&self, records: &[Record], rejected: &[Rejected], attempts: u32) {
        let Some(dead_letters) = &self.shared.dead_letters else { return };
        dead_letters.write(records, rejected, attempts, self.shared.config.retry.backoff).await;
        self.metrics.dead_letters.increment(rejected.len() as u64);
    }
}
