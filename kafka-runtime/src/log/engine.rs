//! The log's thread: one transaction for all that has queued up, then the answers.
//!
//! Each round takes what has come in, holds back what the consumers have no room for, writes the rest together with
//! offsets to commit and a piece of trimming, hands the records to the consumers from memory, and calls the callbacks.
//! SQL is read only for a consumer that is behind.

mod readers;
mod transfers;

use super::config::LogConfig;
use super::db::Db;
use super::inbox::{Append, Command, Inbox, Transfer};
use super::topics::{Reader, Topic, TopicNames};
use crate::error::Error;
use crate::health::HealthCell;
use crate::metrics::{Produced, Writes};
use crate::producer::{InFlight, ProduceError};
use crate::record::{Position, Record};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Records that are removed, or read for a consumer that is behind, in one round.
const CHUNK: usize = 2_000;
/// After a failed write the disk is tried again this often.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// What the thread shares with the handles.
pub(super) struct Shared {
    pub(super) config: LogConfig,
    pub(super) topics: TopicNames,
    pub(super) inbox: Inbox,
    pub(super) in_flight: InFlight,
    pub(super) health: HealthCell,
    pub(super) produced: Produced,
}

struct Commit {
    group: Arc<str>,
    /// (topic, partition, next offset)
    offsets: Vec<(usize, usize, i64)>,
    /// Written with the records of its round, or not at all.
    tied: bool,
    /// `None`: where a group begins. It is tried until it is stored.
    reply: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Commit {
    /// Whoever asked may have given up waiting.
    fn answer(self, result: Result<(), Error>) {
        if let Some(reply) = self.reply {
            drop(reply.send(result));
        }
    }
}

pub(super) struct Engine {
    shared: Arc<Shared>,
    db: Db,
    topics: Vec<Topic>,
    next_token: u64,
    probe_at: Option<Instant>,
    /// After a failed read, no other before this.
    read_at: Option<Instant>,
    incoming: Vec<Append>,
    commands: Vec<Command>,
    /// What is written in this round.
    batch: Vec<Append>,
    positions: Vec<Position>,
    commits: Vec<Commit>,
    /// They wait for room.
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
            let until = self.rest_until();
            let closed = self.shared.inbox.take(&mut self.incoming, &mut self.commands, until);
            self.obey();
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

    /// Until when there is nothing to do unless something comes in. Asks the consumers to tell of the progress that
    /// would give work, then looks once more, so that none is missed.
    fn rest_until(&self) -> Option<Instant> {
        let mut until = self.probe_at;
        let keep = self.shared.config.keep;
        // What has just failed would only fail again. Reading goes on while writing fails: it is how a full disk empties.
        let (may_write, may_read) = (self.probe_at.is_none(), self.read_at.is_none());
        until = until.into_iter().chain(self.read_at).chain(self.transfers_rest_until()).min();
        for topic in &self.topics {
            let behind = |reader: &Reader| -> bool {
                let mut feeds =
                    topic.partitions.iter().zip(&reader.feeds).filter(|(p, feed)| feed.fed < p.end);
                feeds.any(|(_, feed)| {
                    feed.queue.want();
                    feed.queue.room() > 0
                })
            };
            let trim = topic.partitions.iter().any(|p| p.trim_limit(topic.trim, keep) > p.low);
            if may_write && trim || may_read && topic.readers.iter().any(behind) {
                return Some(Instant::now());
            }
            let Some(oldest) = topic.held.front() else { continue };
            topic.readers.iter().flat_map(|reader| &reader.feeds).for_each(|feed| feed.queue.want());
            if topic.room(self.shared.config.max_backlog) > 0 {
                return Some(Instant::now());
            }
            let expires = oldest.enqueued + self.shared.config.produce_timeout;
            until = Some(until.map_or(expires, |until| until.min(expires)));
        }
        until
    }

    /// Moves records from what has come in to what is written, as far as consumers have room and time has not run out.
    fn admit(&mut self) {
        for append in self.incoming.drain(..) {
            self.topics[append.topic].held.push_back(append);
        }
        let mut given_up = Vec::new();
        let config = &self.shared.config;
        let now = Instant::now();
        for topic in self.topics.iter_mut().filter(|topic| !topic.held.is_empty()) {
            let is_late = |oldest: &Append| now.duration_since(oldest.enqueued) > config.produce_timeout;
            if topic.held.front().is_some_and(is_late) {
                topic.give_up(ProduceError::TimedOut, now);
            }
            if let Some(reason) = topic.gives_up(now) {
                given_up.push((topic.held.drain(..).collect(), reason));
            }
            let room = topic.room(config.max_backlog).min(topic.held.len());
            self.batch.extend(topic.held.drain(..room));
            topic.metrics.held.set(topic.held.len() as f64);
        }
        for (appends, reason) in given_up {
            self.answer(appends, |_| Err(reason.clone()));
        }
    }

    /// Writes everything in one transaction. When that fails, offsets and trimming are tried without the records: they are
    /// what makes room on a full disk.
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
            self.failed(error);
            let reason = describe(error);
            self.fail_tied_commits(&reason);
            let reason = ProduceError::Unavailable { reason };
            for append in &batch {
                self.topics[append.topic].give_up(reason.clone(), Instant::now());
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

    /// (topic, partition, first offset, offset after the last) of what is to be removed now.
    fn trims(&self) -> Vec<(usize, usize, i64, i64)> {
        let chunk = i64::try_from(CHUNK.max(2 * self.batch.len())).unwrap_or(i64::MAX);
        let mut trims = Vec::new();
        for (t, topic) in self.topics.iter().enumerate() {
            for (p, partition) in topic.partitions.iter().enumerate() {
                let limit = partition.trim_limit(topic.trim, self.shared.config.keep);
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

    fn failed(&mut self, error: &Error) {
        self.metrics.failures.increment(1);
        if self.probe_at.is_none() {
            tracing::error!(error = error as &dyn std::error::Error, "the log cannot write");
        }
        self.shared.health.failing(describe(error));
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
                readers::feed(&mut topic.readers, number, partition.end, &mut partition.written);
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

    fn finish_commits(&mut self, result: Result<(), Error>, trims: &[(usize, usize, i64, i64)]) {
        let commits = std::mem::take(&mut self.commits);
        if let Err(error) = result {
            // Each waits for an answer of its own; the error can't be copied, its words can.
            let reason = describe(&error);
            for commit in commits {
                match commit.reply {
                    Some(_) => commit.answer(Err(Error::NotCommitted { reason: reason.clone() })),
                    None => self.commits.push(commit),
                }
            }
            return;
        }
        for &(topic, partition, _, to) in trims {
            self.topics[topic].partitions[partition].low = to;
        }
        for commit in commits {
            for &(topic, partition, next) in &commit.offsets {
                self.topics[topic].partitions[partition].set_committed(&commit.group, next);
            }
            commit.answer(Ok(()));
        }
    }

    /// Finds out whether a disk that failed works again, without waiting for somebody's record to try it with.
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
            Err(error) => self.failed(&error),
        }
    }
}

impl Drop for Engine {
    /// Also runs when the thread panics: nobody waits for an answer that cannot come.
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

fn describe(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
