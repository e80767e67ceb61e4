//! The log thread. Each round takes everything that has arrived, holds back the records that the consumers have
//! no room for, and writes the others in one transaction, together with offsets to commit and a chunk of
//! trimming. Then it hands the records to the consumers from memory and calls the callbacks. Only a consumer
//! that has fallen behind reads from SQLite.

mod commits;
mod readers;
mod transfers;

use super::db::Db;
use super::inbox::{Append, Command, Transfer};
use super::shared::Shared;
use super::topics::{self, Reader, Topic};
use crate::error::Error;
use crate::metrics::Writes;
use crate::producer::ProduceError;
use crate::record::{Position, Record};
use commits::Commit;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Records that one round removes, or reads for a consumer that has fallen behind.
const CHUNK: usize = 2_000;
/// Interval of the disk probe after a failed write.
const PROBE_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Engine {
    shared: Arc<Shared>,
    db: Db,
    topics: Vec<Topic>,
    next_token: u64,
    probe_at: Option<Instant>,
    /// Do not read before this time: the last read has failed.
    read_at: Option<Instant>,
    incoming: Vec<Append>,
    commands: Vec<Command>,
    /// Records to be written in this round.
    batch: Vec<Append>,
    positions: Vec<Position>,
    commits: Vec<Commit>,
    /// Transfers that wait for room.
    transfers: Vec<Transfer>,
    metrics: Writes,
}

impl Engine {
    pub(super) fn new(shared: Arc<Shared>, db: Db, topics: Vec<Topic>) -> Self {
        Self {
            shared,
            db,
            topics,
            next_token: 0,
            probe_at: None,
            read_at: None,
            incoming: Vec::new(),
            commands: Vec::new(),
            batch: Vec::new(),
            positions: Vec::new(),
            commits: Vec::new(),
            transfers: Vec::new(),
            metrics: Writes::new(),
        }
    }

    pub(super) fn run(mut self) {
        loop {
            let until = self.sleep_until();
            let closed = self.shared.inbox.take(&mut self.incoming, &mut self.commands, until);
            self.apply_commands();
            self.admit();
            self.admit_transfers();
            self.write();
            self.refill();
            self.probe();
            if closed {
                break;
            }
        }
    }

    /// The time until which the thread may sleep unless something arrives. Asks the consumers for a
    /// notification of their progress first and looks at their queues afterwards, so that no progress is
    /// missed.
    fn sleep_until(&self) -> Option<Instant> {
        let mut until = self.probe_at;
        let keep = self.shared.config.keep;
        // An operation that has just failed would fail again. Reads continue while writes fail: consuming frees space
        // on a full disk.
        let (may_write, may_read) = (self.probe_at.is_none(), self.read_at.is_none());
        until = until.into_iter().chain(self.read_at).chain(self.transfers_sleep_until()).min();
        for topic in &self.topics {
            let behind = |reader: &Reader| -> bool {
                let mut feeds =
                    topic.partitions.iter().zip(&reader.feeds).filter(|(p, feed)| feed.fed < p.end);
                feeds.any(|(_, feed)| {
                    feed.queue.notify_on_progress();
                    feed.queue.room() > 0
                })
            };
            let trim =
                topic.partitions.iter().enumerate().any(|(p, found)| topic.trim_limit(p, keep) > found.low);
            if may_write && trim || may_read && topic.readers.iter().any(behind) {
                return Some(Instant::now());
            }
            let Some(oldest) = topic.held.front() else { continue };
            topic
                .readers
                .iter()
                .flat_map(|reader| &reader.feeds)
                .for_each(|feed| feed.queue.notify_on_progress());
            if topic.room(self.shared.config.max_backlog) > 0 {
                return Some(Instant::now());
            }
            let expires = oldest.enqueued + self.shared.config.produce_timeout;
            until = Some(until.map_or(expires, |until| until.min(expires)));
        }
        until
    }

    /// Moves records from the inbox to this round's batch, as far as the consumers have room. Times out the
    /// others.
    fn admit(&mut self) {
        for append in self.incoming.drain(..) {
            self.topics[append.topic].held.push_back(append);
        }
        let mut rejected = Vec::new();
        let config = &self.shared.config;
        let now = Instant::now();
        for topic in self.topics.iter_mut().filter(|topic| !topic.held.is_empty()) {
            let is_expired = |oldest: &Append| now.duration_since(oldest.enqueued) > config.produce_timeout;
            if topic.held.front().is_some_and(is_expired) {
                topic.reject(ProduceError::TimedOut, now);
            }
            if let Some(reason) = topic.rejection(now) {
                rejected.push((topic.held.drain(..).collect(), reason));
            }
            let room = topic.room(config.max_backlog).min(topic.held.len());
            self.batch.extend(topic.held.drain(..room));
            topic.metrics.held.set(topic.held.len() as f64);
        }
        for (appends, reason) in rejected {
            self.answer(appends, |_| Err(reason.clone()));
        }
    }

    /// Writes everything in one transaction. If that fails, retries offsets and trimming without the records,
    /// because they make room on a full disk.
    fn write(&mut self) {
        let trims = self.trims();
        if self.batch.is_empty() && self.commits.is_empty() && trims.is_empty() {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let at = i64::try_from(now).unwrap_or(i64::MAX);
        let mut result = self.transaction(at, true, &trims);
        let batch = std::mem::take(&mut self.batch);
        if let Err(error) = &result {
            self.write_failed(error);
            let reason = error.describe();
            self.fail_commits_with_records(&reason);
            let reason = ProduceError::Unavailable { reason };
            for append in &batch {
                self.topics[append.topic].reject(reason.clone(), Instant::now());
            }
            self.answer(batch, |_| Err(reason.clone()));
            if !self.commits.is_empty() || !trims.is_empty() {
                result = self.transaction(at, false, &trims);
            }
        } else {
            self.metrics.writes.increment(1);
            self.shared.health.ready();
            self.probe_at = None;
            self.deliver(at, batch);
        }
        self.finish_commits(result, &trims);
    }

    /// (topic, partition, first offset, offset after the last) of the records to remove now.
    fn trims(&self) -> Vec<(usize, usize, i64, i64)> {
        let chunk = i64::try_from(CHUNK.max(2 * self.batch.len())).unwrap_or(i64::MAX);
        let mut trims = Vec::new();
        for (t, topic) in self.topics.iter().enumerate() {
            for (p, partition) in topic.partitions.iter().enumerate() {
                let limit = topic.trim_limit(p, self.shared.config.keep);
                let limit = limit.min(partition.low + chunk);
                if limit > partition.low {
                    trims.push((t, p, partition.low, limit));
                }
            }
        }
        trims
    }

    fn transaction(
        &mut self,
        at: i64,
        records: bool,
        trims: &[(usize, usize, i64, i64)],
    ) -> Result<(), Error> {
        let Self { db, topics, batch, positions, commits, .. } = self;
        positions.clear();
        topics.iter_mut().flat_map(|topic| &mut topic.partitions).for_each(|p| p.next = p.end);
        let mut write = || {
            db.begin()?;
            let rows = batch.iter().filter(|_| records).map(|append| {
                let partition = &mut topics[append.topic].partitions[append.partition];
                let offset = partition.next;
                partition.next += 1;
                positions.push(Position { partition: partition.name.partition, offset });
                let record = &append.record;
                (partition.id, offset, &record.key, &record.payload, &record.headers)
            });
            db.insert(at, rows)?;
            for commit in commits.iter() {
                for &(topic, partition, next) in &commit.offsets {
                    db.set_committed(&commit.group, topics[topic].partitions[partition].id, next)?;
                }
            }
            for &(topic, partition, from, to) in trims {
                db.remove(topics[topic].partitions[partition].id, from, to)?;
            }
            db.commit()
        };
        let result = write();
        if result.is_err() {
            self.db.rollback();
        }
        result
    }

    fn write_failed(&mut self, error: &Error) {
        self.metrics.failures.increment(1);
        if self.probe_at.is_none() {
            let directory = self.shared.config.directory.display();
            tracing::error!(error = error as &dyn std::error::Error, %directory, "the log cannot write");
        }
        self.shared.health.failing(error.describe());
        self.probe_at = Some(Instant::now() + PROBE_EVERY);
    }

    /// Hands written records to the consumers and answers their producers.
    fn deliver(&mut self, at: i64, batch: Vec<Append>) {
        if batch.is_empty() {
            return;
        }
        let (mut bytes, mut answers) = (0, Vec::with_capacity(batch.len()));
        for (append, position) in batch.into_iter().zip(&self.positions) {
            bytes += append.size;
            answers.push((append.delivery, *position));
            let topic = &mut self.topics[append.topic];
            if topic.readers.is_empty() {
                continue;
            }
            let partition = &mut topic.partitions[append.partition];
            let record = append.record;
            partition.written.push(Record {
                topic: Arc::clone(&partition.name.topic),
                partition: position.partition,
                offset: position.offset,
                key: record.key,
                payload: record.payload,
                headers: record.headers,
                timestamp_ms: at,
            });
        }
        for topic in &mut self.topics {
            for (number, partition) in topic.partitions.iter_mut().enumerate() {
                topics::feed(&mut topic.readers, number, partition.end, &mut partition.written);
                partition.end = partition.next;
            }
            topic.metrics.records.set(topic.backlog() as f64);
        }
        let count = answers.len();
        self.shared.inbox.release(count, bytes);
        self.shared.produced.ok(count);
        for (delivery, position) in answers {
            delivery.answer(Ok(position));
        }
        self.shared.in_flight.end(count);
    }

    fn answer(&self, appends: Vec<Append>, result: impl Fn(&Append) -> Result<Position, ProduceError>) {
        let count = appends.len();
        self.shared.inbox.release(count, appends.iter().map(|append| append.size).sum());
        for append in appends {
            let result = result(&append);
            self.shared.produced.outcome(&result);
            append.delivery.answer(result);
        }
        self.shared.in_flight.end(count);
    }

    /// Checks whether a failed disk works again, without risking a record.
    fn probe(&mut self) {
        if self.probe_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        match self.db.probe() {
            Ok(()) => {
                self.probe_at = None;
                self.shared.health.ready();
                tracing::info!("the log can write again");
            }
            Err(error) => self.write_failed(&error),
        }
    }
}

impl Drop for Engine {
    /// Also runs when the thread panics, so that no caller waits for a reply that cannot come.
    fn drop(&mut self) {
        self.shared.inbox.close();
        self.shared.health.failing("the log is closed".into());
        self.commands.clear();
        self.shared.inbox.take(&mut self.incoming, &mut self.commands, None);
        let held = self.topics.iter_mut().flat_map(|topic| std::mem::take(&mut topic.held));
        let transfers = self.transfers.drain(..).flat_map(|transfer| transfer.outputs);
        let appends = self.batch.drain(..).chain(held).chain(transfers);
        let rest: Vec<Append> = appends.chain(self.incoming.drain(..)).collect();
        self.answer(rest, |_| Err(ProduceError::Closed));
        for feed in self.topics.iter().flat_map(|topic| &topic.readers).flat_map(|reader| &reader.feeds) {
            feed.queue.close();
        }
    }
}
