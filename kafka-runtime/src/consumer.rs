//! Reads a [`Source`] and hands batches or single records to a tower service. One worker per partition retries failures,
//! writes rejected records to the dead-letter topic, and reports its progress. Offsets are committed in order.
//!
//! ```text
//! Source ── assigned ──▶ one worker per partition: batch ▶ handler ▶ (retry) ▶ (dead letter) ▶ done
//!        ◀── commit ──── about every second, on revoke and on shutdown: before_commit, then the offsets
//! ```

mod attempt;
mod batches;
mod commits;
mod config;
mod context;
mod handler;
mod keys;
mod records;
mod run;
mod transform;
mod worker;

pub use config::{ConsumerConfig, Ordering, RetryPolicy};
pub use handler::{BatchHandler, HandlerError, Outcome, RecordHandler, Rejected, TransformHandler};

use crate::dead_letters::DeadLetters;
use crate::error::Error;
use crate::observer::{Observer, PanicSafeObserver};
use crate::source::{PartitionStart, Source, StartOffsets};
use commits::BeforeCommit;
use std::sync::{Arc, Weak};
use tokio_util::sync::CancellationToken;
use worker::Work;

/// A consumer that is ready to [run](Self::run).
pub struct Consumer {
    source: Arc<dyn Source>,
    work: Work,
    name: Arc<str>,
    config: ConsumerConfig,
    dead_letters: Option<DeadLetters>,
    before_commit: Option<BeforeCommit>,
    start_offsets: Option<StartOffsets>,
    observer: Arc<dyn Observer>,
    /// Whether the run loop commits offsets. If not, the workers do.
    commits_offsets: bool,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.name)
            .field("config", &self.config)
            .field("dead_letters", &self.dead_letters)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// A consumer whose handler takes batches. A batch contains the records that were queued in a partition while the previous
    /// batch was in flight. The handler is cloned for each partition.
    pub fn batches(source: Arc<dyn Source>, handler: impl BatchHandler) -> Self {
        Self::new(source, Arc::new(move |context| Box::pin(batches::work(context, handler.clone()))))
    }

    /// A consumer whose handler takes one record at a time. The handler is cloned for each partition.
    pub fn records(source: Arc<dyn Source>, handler: impl RecordHandler) -> Self {
        Self::new(source, Arc::new(move |context| Box::pin(records::work(context, handler.clone()))))
    }

    /// A consumer whose handler turns each batch into output records. The outputs are written to the log that is read, in one
    /// transaction with the batch's offset ([`Source::transact`]). Despite crashes, a reader of the outputs that sees only
    /// committed records (the default) finds the outputs of each record exactly once.
    ///
    /// - A rejected record is dead-lettered before its offset is written. After a crash in between, it is dead-lettered twice.
    /// - A failed write does not count as an attempt of the [`RetryPolicy`], unless the log will never accept an output.
    /// - [`before_commit`](Self::before_commit) is not called. Each batch counts as one commit for the [`Observer`] and the
    ///   metrics.
    pub fn transform(source: Arc<dyn Source>, handler: impl TransformHandler) -> Self {
        let weak = Arc::downgrade(&source);
        let work: Work =
            Arc::new(move |context| Box::pin(transform::work(context, Weak::clone(&weak), handler.clone())));
        Self { commits_offsets: false, ..Self::new(source, work) }
    }

    fn new(source: Arc<dyn Source>, work: Work) -> Self {
        let (config, name) = (ConsumerConfig::default(), "consumer".into());
        Self {
            source,
            work,
            name,
            config,
            dead_letters: None,
            before_commit: None,
            start_offsets: None,
            observer: Arc::new(()),
            commits_offsets: true,
        }
    }

    /// Sets the name in logs, spans and metrics. `consumer` by default.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets limits, timeouts and policies.
    #[must_use]
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the writer of dead letters. Without it a rejected record is retried forever: its partition is stuck, with an error in
    /// the log.
    #[must_use]
    pub fn dead_letters(mut self, dead_letters: DeadLetters) -> Self {
        self.dead_letters = Some(dead_letters);
        self
    }

    /// Sets a hook that runs before offsets are committed, for example to sync the handler's writes to disk. If it fails, nothing
    /// is committed, and both are retried later.
    #[must_use]
    pub fn before_commit<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<crate::BoxError>,
    {
        self.before_commit = Some(Arc::new(move || {
            let running = hook();
            Box::pin(async move { running.await.map_err(Into::into) })
        }));
        self
    }

    /// Sets a hook that chooses where each assigned partition begins to be read: at an offset, or with `None` at the committed offset.
    /// A handler that stores its own position, in one transaction with its results, begins there. So it catches up by itself when
    /// its database was restored from a backup or has lost transactions.
    ///
    /// The hook runs after each assignment, before a record of the partition is read. As long as it fails or takes longer than 5 s, it
    /// is retried with backoff, the newly assigned partitions of this member wait, and the source's
    /// [health](Source::health) has the reason. An offset that the log does not have becomes its first offset or its end. A
    /// chosen offset replaces the committed one. On Kafka, a partition without a leader begins at the committed offset without the
    /// hook, and [`Batch::follows`](crate::Batch::follows) of its first batch is `None`.
    #[must_use]
    pub fn start_offsets<F, Fut, E>(mut self, hook: F) -> Self
    where
        F: Fn(PartitionStart) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Option<i64>, E>> + Send + 'static,
        E: Into<crate::BoxError>,
    {
        self.start_offsets = Some(Arc::new(move |start| {
            let running = hook(start);
            Box::pin(async move { running.await.map_err(Into::into) })
        }));
        self
    }

    /// Sets the observer of partitions and commits.
    #[must_use]
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Arc::new(PanicSafeObserver(observer));
        self
    }

    /// Consumes until `shutdown` is cancelled. Then it finishes the records in flight, commits and leaves the group. Dropping the
    /// future abandons everything at once, and leaves the group if it holds the last reference to the source.
    ///
    /// # Errors
    /// The source has ended, or a worker panicked. Uncommitted records will be delivered again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        run::Run::new(self).run(shutdown).await
    }
}

#[cfg(test)]
mod tests;
