//! Reads a [`Source`] and hands batches to a tower service: one worker per partition, failures retried for ever, rejected
//! records to the dead-letter topic, offsets committed in order and only when done.
//!
//! ```text
//! Source ── assigned ──▶ one task per partition: batch ▶ handler ▶ (retry) ▶ dead letters ▶ done
//!        ◀── commit ──── about every second, on revoke, on drain: before_commit, then the offsets
//! ```

mod commits;
mod dead_letter;
mod handler;
mod worker;

pub use dead_letter::{DeadLetters, header};
pub use handler::{Handler, HandlerError, Outcome, Rejected};

use crate::backoff::Backoff;
use crate::error::Error;
use crate::metrics::Group;
use crate::record::TopicPartition;
use crate::source::{AssignedPartition, Event, Offsets, Source};
use commits::{BeforeCommit, Commits};
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use worker::{Worker, WorkerContext};

/// Limits and times of a [`Consumer`].
#[derive(Clone, Copy, Debug)]
pub struct ConsumerConfig {
    /// Most records of a batch. 1,000 by default.
    pub max_records: usize,
    /// Most bytes of a batch; one larger record makes a batch of its own. 1 MiB by default.
    pub max_bytes: usize,
    /// Waits between attempts: 100 ms doubling to 5 s by default.
    pub backoff: Backoff,
    /// Offsets are committed about this often. 1 s by default.
    pub commit_interval: Duration,
    /// A commit with its hook may take so long. 5 s by default.
    pub commit_timeout: Duration,
    /// On revoke and on drain, batches in flight may take so long to finish; then they are abandoned and will be delivered
    /// again. 5 s by default.
    pub finish_timeout: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            max_records: 1_000,
            max_bytes: 1 << 20,
            backoff: Backoff::default(),
            commit_interval: Duration::from_secs(1),
            commit_timeout: Duration::from_secs(5),
            finish_timeout: Duration::from_secs(5),
        }
    }
}

/// A consumer that is ready to [run](Self::run).
pub struct Consumer<H> {
    source: Arc<dyn Source>,
    config: ConsumerConfig,
    commits: Commits,
    metrics: Group,
    workers: HashMap<TopicPartition, Worker>,
    context: WorkerContext<H>,
}

impl<H> std::fmt::Debug for Consumer<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl<H: Handler> Consumer<H> {
    /// A consumer with the default configuration and no hook. The handler is cloned for each partition.
    pub fn new(source: Arc<dyn Source>, handler: H, dead_letters: DeadLetters) -> Self {
        let config = ConsumerConfig::default();
        let context = WorkerContext { handler, dead_letters, config, progress: Arc::default() };
        let commits = Commits::new(Arc::clone(&source), config.commit_timeout);
        Self { source, config, commits, metrics: Group::new(), workers: HashMap::new(), context }
    }

    /// Sets limits and times.
    #[must_use]
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self.context.config = config;
        self.commits.set_timeout(config.commit_timeout);
        self
    }

    /// Sets what runs before offsets are committed, for example to make durable what the handler has done. If it fails,
    /// nothing is committed, and both are tried again later.
    #[must_use]
    pub fn before_commit<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<crate::BoxError>,
    {
        let hook: BeforeCommit = Arc::new(move || {
            let running = hook();
            Box::pin(async move { running.await.map_err(Into::into) })
        });
        self.commits.set_hook(hook);
        self
    }

    /// Consumes until `shutdown` is cancelled; then finishes what is in flight, commits and leaves the group. An error
    /// means that the source is finished; what was not committed will be delivered again. Dropping the future abandons
    /// everything at once.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        self.source.start().await?;
        let source = Arc::clone(&self.source);
        let progress = Arc::clone(&self.context.progress);
        let mut commit_at = None;
        let result = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(()),
                event = source.next() => match event {
                    Ok(event) => self.on_event(event).await,
                    Err(error) => break Err(error),
                },
                result = self.commits.finished() => {
                    self.on_committed(result);
                    commit_at = self.has_uncommitted().then(|| Instant::now() + self.config.commit_interval);
                }
                () = progress.notified(), if commit_at.is_none() && !self.commits.is_running() => {
                    commit_at = Some(Instant::now() + self.config.commit_interval);
                }
                () = sleep_until(commit_at) => {
                    commit_at = None;
                    let offsets = self.uncommitted(self.workers.keys());
                    self.commits.begin(offsets);
                }
            }
        };
        let partitions: Vec<_> = self.workers.keys().cloned().collect();
        tracing::debug!(partitions = partitions.len(), "finishing what is in flight");
        self.finish(partitions).await;
        self.source.close().await;
        result
    }

    async fn on_event(&mut self, event: Event) {
        self.metrics.rebalances.increment(1);
        match event {
            Event::Assigned(partitions) => {
                for AssignedPartition { partition, queue } in partitions {
                    tracing::info!(%partition, "partition assigned");
                    let worker = Worker::start(partition.clone(), queue, &self.context);
                    self.workers.insert(partition, worker);
                }
            }
            Event::Revoked { partitions, release } => {
                tracing::info!(count = partitions.len(), "partitions revoked");
                self.finish(partitions).await;
                drop(release);
            }
            Event::Lost(partitions) => {
                tracing::warn!(count = partitions.len(), "partitions lost");
                self.abort(&partitions).await;
            }
        }
    }

    /// Ends workers after their current batch, or without it when it takes too long, and commits what they have done.
    async fn finish(&mut self, partitions: Vec<TopicPartition>) {
        let deadline = Instant::now() + self.config.finish_timeout;
        for partition in &partitions {
            if let Some(worker) = self.workers.get(partition) {
                worker.finish();
            }
        }
        for partition in &partitions {
            if let Some(worker) = self.workers.get_mut(partition)
                && tokio::time::timeout_at(deadline, worker.ended()).await.is_err()
            {
                tracing::warn!(%partition, "abandoned the batch in flight: it will be delivered again");
            }
        }
        if self.commits.is_running() {
            let result = self.commits.finished().await;
            self.on_committed(result);
        }
        let offsets = self.uncommitted(partitions.iter());
        self.commits.begin(offsets);
        if self.commits.is_running() {
            let result = self.commits.finished().await;
            self.on_committed(result);
        }
        self.abort(&partitions).await;
    }

    /// Ends workers at once. None of their offsets is committed after this.
    async fn abort(&mut self, partitions: &[TopicPartition]) {
        let workers = partitions.iter().filter_map(|partition| self.workers.remove(partition));
        join_all(workers.map(Worker::abort)).await;
    }

    fn uncommitted<'a>(&'a self, partitions: impl Iterator<Item = &'a TopicPartition>) -> Offsets {
        let workers = partitions.filter_map(|partition| self.workers.get_key_value(partition));
        workers.filter_map(|(partition, worker)| Some((partition.clone(), worker.uncommitted()?))).collect()
    }

    fn has_uncommitted(&self) -> bool {
        self.workers.values().any(|worker| worker.uncommitted().is_some())
    }

    fn on_committed(&mut self, result: Result<Offsets, Error>) {
        match result {
            Ok(offsets) => {
                self.metrics.commits.increment(1);
                for (partition, next) in offsets {
                    if let Some(worker) = self.workers.get_mut(&partition) {
                        worker.committed(next);
                    }
                }
            }
            Err(error) => {
                self.metrics.commit_failures.increment(1);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "offsets not committed, trying again later"
                );
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
