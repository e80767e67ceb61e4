//! Reads a [`Source`] and hands batches or single records to a tower service: one worker per partition, failures tried again,
//! rejected records to the dead-letter topic, offsets committed in order and only when done.
//!
//! ```text
//! Source ── assigned ──▶ one task per partition: batch ▶ handler ▶ (retry) ▶ dead letters ▶ done
//!        ◀── commit ──── about every second, on revoke, on drain: before_commit, then the offsets
//! ```

mod attempt;
mod batches;
mod commits;
mod config;
mod handler;
mod keys;
mod lane;
mod records;
mod run;
mod transform;
mod worker;

pub use config::{ConsumerConfig, Ordering, RetryPolicy};
pub use handler::{BatchHandler, HandlerError, Outcome, RecordHandler, Rejected, TransformHandler};

use crate::dead_letters::DeadLetters;
use crate::error::Error;
use crate::observer::{Guarded, Observer};
use crate::source::Source;
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
    observer: Arc<dyn Observer>,
    /// Whether the loop commits what is done. Otherwise the workers do.
    commits: bool,
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
    /// A consumer whose handler takes batches: what has queued up in a partition while the last batch was in flight. The
    /// handler is cloned for each partition.
    pub fn batches(source: Arc<dyn Source>, handler: impl BatchHandler) -> Self {
        Self::new(source, Arc::new(move |lane| Box::pin(batches::work(lane, handler.clone()))))
    }

    /// A consumer whose handler takes one record at a time. The handler is cloned for each partition.
    pub fn records(source: Arc<dyn Source>, handler: impl RecordHandler) -> Self {
        Self::new(source, Arc::new(move |lane| Box::pin(records::work(lane, handler.clone()))))
    }

    /// A consumer whose handler makes records out of each batch. They are written to the log that is read, together with the
    /// batch's offset, both or neither ([`Source::transact`]): whatever crashes in between, a reader of the outputs that sees
    /// committed records only (the default) finds those of each record exactly once.
    ///
    /// A record that is rejected goes to the dead letters before its offset is written: after a crash just between the two, it
    /// is there twice. What the log does not take uses up no attempt of the [`RetryPolicy`], unless it says that it will never take
    /// it. [`before_commit`](Self::before_commit) is not called, and neither an [`Observer`] nor the metrics of commits hear of offsets:
    /// those of a transformation are batches that were handled.
    pub fn transform(source: Arc<dyn Source>, handler: impl TransformHandler) -> Self {
        let reads = Arc::downgrade(&source);
        let work: Work =
            Arc::new(move |lane| Box::pin(transform::work(lane, Weak::clone(&reads), handler.clone())));
        Self { commits: false, ..Self::new(source, work) }
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
            observer: Arc::new(()),
            commits: true,
        }
    }

    /// Names it in logs, spans and metrics. `consumer` by default.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets limits, times and policies.
    #[must_use]
    pub fn config(mut self, config: ConsumerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets where rejected records go. Without it none is ever given up: its partition waits, with an error in the log.
    #[must_use]
    pub fn dead_letters(mut self, dead_letters: DeadLetters) -> Self {
        self.dead_letters = Some(dead_letters);
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
        self.before_commit = Some(Arc::new(move || {
            let running = hook();
            Box::pin(async move { running.await.map_err(Into::into) })
        }));
        self
    }

    /// Sets who hears of partitions and commits.
    #[must_use]
    pub fn observe(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Arc::new(Guarded(observer));
        self
    }

    /// Consumes until `shutdown` is cancelled; then finishes what is in flight, commits and leaves the group.
    ///
    /// # Errors
    /// The source is finished; what was not committed will be delivered again. Dropping the future abandons everything at
    /// once, and leaves the group unless somebody else still holds the source.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        run::Run::new(self).run(shutdown).await
    }
}

#[cfg(test)]
mod tests;
