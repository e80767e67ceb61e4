//! The main loop of a consumer: it starts and ends workers as partitions are assigned and revoked, and commits offsets.

use super::Consumer;
use super::commits::{Committed, Committer};
use super::context::Shared;
use super::worker::{Work, Worker};
use crate::error::Error;
use crate::metrics::Group;
use crate::record::TopicPartition;
use crate::source::{AssignedPartition, Event, Offsets, Source, StartOffsets};
use futures_util::FutureExt;
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Interval between attempts of the last commit before partitions are revoked.
const COMMIT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Run {
    source: Arc<dyn Source>,
    work: Work,
    shared: Arc<Shared>,
    committer: Committer,
    workers: HashMap<TopicPartition, Worker>,
    start_offsets: Option<StartOffsets>,
    /// Whether this loop commits offsets. If not, the workers do.
    commits_offsets: bool,
}

impl Run {
    pub(super) fn new(consumer: Consumer) -> Self {
        let Consumer {
            source,
            work,
            name,
            config,
            dead_letters,
            before_commit,
            start_offsets,
            observer,
            commits_offsets,
        } = consumer;
        Self {
            start_offsets,
            committer: Committer::new(Arc::clone(&source), before_commit, config.commit_timeout),
            shared: Arc::new(Shared {
                metrics: Group::new(&name),
                name,
                config,
                dead_letters,
                observer,
                progress: Default::default(),
                failed: CancellationToken::new(),
                failure: OnceLock::new(),
            }),
            workers: HashMap::new(),
            commits_offsets,
            source,
            work,
        }
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        // The start may wait for the hook that chooses the start offsets.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {
                self.source.close().await;
                return Ok(());
            }
            started = self.source.start(self.start_offsets.take()) => started?,
        }
        let (source, shared) = (Arc::clone(&self.source), Arc::clone(&self.shared));
        let interval = shared.config.commit_interval;
        let mut commit_at = None;
        let result = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(()),
                () = shared.failed.cancelled() => break Err(shared.failure()),
                event = source.next() => match event {
                    Ok(event) => self.on_event(event).await,
                    Err(error) => break Err(error),
                },
                committed = self.committer.finished() => {
                    self.on_committed(committed);
                    commit_at = self.has_uncommitted().then(|| Instant::now() + interval);
                }
                () = shared.progress.notified(), if commit_at.is_none() && !self.committer.is_running() => {
                    commit_at = Some(Instant::now() + interval);
                }
                () = sleep_until(commit_at) => {
                    commit_at = None;
                    let offsets = self.uncommitted(self.workers.keys());
                    self.committer.start(offsets);
                }
            }
        };
        tracing::debug!(partitions = self.workers.len(), "finishing records in flight");
        self.handle_pending_revocations().await;
        self.end_workers(&self.partitions()).await;
        self.handle_pending_revocations().await;
        let partitions = self.partitions();
        self.finish(&partitions).await;
        if !partitions.is_empty() {
            self.shared.observer.revoked(&self.shared.name, &partitions);
        }
        self.source.close().await;
        result
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        self.workers.keys().cloned().collect()
    }

    /// Handles revocations and losses that arrive during the shutdown. Lost partitions must not be finished or committed, and
    /// the group waits for revoked ones.
    async fn handle_pending_revocations(&mut self) {
        while let Some(Ok(event)) = self.source.next().now_or_never() {
            if !matches!(event, Event::Assigned(_)) {
                self.on_event(event).await;
            }
        }
    }

    async fn on_event(&mut self, event: Event) {
        let consumer = &*self.shared.name;
        match event {
            Event::Assigned(partitions) => {
                self.shared.metrics.assigned.increment(1);
                let assigned: Vec<_> = partitions.iter().map(|assigned| assigned.partition.clone()).collect();
                self.shared.observer.assigned(consumer, &assigned);
                for AssignedPartition { partition, queue } in partitions {
                    tracing::info!(consumer, %partition, "partition assigned");
                    let worker = Worker::start(partition.clone(), queue, &self.shared, &self.work);
                    self.workers.insert(partition, worker);
                }
            }
            Event::Revoked { mut partitions, release } => {
                partitions.retain(|partition| self.workers.contains_key(partition));
                self.shared.metrics.revoked.increment(1);
                tracing::info!(consumer, count = partitions.len(), "partitions revoked");
                self.finish(&partitions).await;
                if !partitions.is_empty() {
                    self.shared.observer.revoked(&self.shared.name, &partitions);
                }
                drop(release);
            }
            Event::Lost(mut partitions) => {
                partitions.retain(|partition| self.workers.contains_key(partition));
                self.shared.metrics.lost.increment(1);
                tracing::warn!(consumer, count = partitions.len(), "partitions lost");
                // A commit that still waits for its hook may include the lost partitions. Its other offsets are committed later.
                self.committer.abandon();
                self.abort(&partitions).await;
                if !partitions.is_empty() {
                    self.shared.observer.lost(&self.shared.name, &partitions);
                }
                self.shared.progress.notify_one();
            }
        }
    }

    /// Ends workers after their records in flight or after the timeout, and commits their offsets.
    async fn finish(&mut self, partitions: &[TopicPartition]) {
        self.end_workers(partitions).await;
        self.commit_last(partitions).await;
        self.abort(partitions).await;
    }

    /// Tells workers to finish and waits for them up to the timeout. It does not wait again for workers that it told before.
    async fn end_workers(&mut self, partitions: &[TopicPartition]) {
        let deadline = Instant::now() + self.shared.config.finish_timeout;
        let is_new = |partition: &&TopicPartition| self.workers.get(partition).is_some_and(Worker::finish);
        let partitions: Vec<_> = partitions.iter().filter(is_new).collect();
        for partition in partitions {
            if let Some(worker) = self.workers.get_mut(partition)
                && tokio::time::timeout_at(deadline, worker.ended()).await.is_err()
            {
                tracing::warn!(%partition, "records in flight abandoned after the timeout, they will be delivered again");
            }
        }
    }

    /// Commits the offsets of workers that end. Retries until the commit timeout, because there is no later commit for them.
    async fn commit_last(&mut self, partitions: &[TopicPartition]) {
        let deadline = Instant::now() + self.shared.config.commit_timeout;
        // The running commit may hang in its hook. The new commit includes these offsets; the others are committed later.
        self.committer.abandon();
        self.shared.progress.notify_one();
        loop {
            let offsets = self.uncommitted(partitions.iter());
            self.committer.start_until(offsets, deadline);
            if !self.committer.is_running() {
                return;
            }
            let committed = self.committer.finished().await;
            let is_over = committed.result.as_ref().err().is_none_or(Error::is_fenced);
            self.on_committed(committed);
            if is_over || Instant::now() + COMMIT_RETRY_INTERVAL >= deadline {
                return;
            }
            tokio::time::sleep(COMMIT_RETRY_INTERVAL).await;
        }
    }

    /// Aborts workers. Their offsets are not committed after this.
    async fn abort(&mut self, partitions: &[TopicPartition]) {
        let workers = partitions.iter().filter_map(|partition| self.workers.remove(partition));
        join_all(workers.map(Worker::abort)).await;
    }

    fn uncommitted<'a>(&'a self, partitions: impl Iterator<Item = &'a TopicPartition>) -> Offsets {
        let partitions = partitions.filter(|_| self.commits_offsets);
        let workers = partitions.filter_map(|partition| self.workers.get_key_value(partition));
        workers.filter_map(|(partition, worker)| Some((partition.clone(), worker.uncommitted()?))).collect()
    }

    fn has_uncommitted(&self) -> bool {
        self.commits_offsets && self.workers.values().any(|worker| worker.uncommitted().is_some())
    }

    fn on_committed(&mut self, Committed { offsets, result }: Committed) {
        self.shared.report_commit(&offsets, result.as_ref().map(drop));
        match result {
            Ok(()) => {
                for (partition, next) in offsets {
                    if let Some(worker) = self.workers.get_mut(&partition) {
                        worker.set_committed(next);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(
                    consumer = &*self.shared.name,
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
