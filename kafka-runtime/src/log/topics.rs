//! The state of each topic in the log thread: partition ends, readers, held records.

use super::config::{LogConfig, LogTopic};
use super::db::Db;
use super::inbox::Append;
use crate::error::Error;
use crate::metrics::Backlog;
use crate::producer::{FAILURE_PAUSE, ProduceError};
use crate::record::{Record, TopicPartition};
use crate::source::Queue;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tokio_util::sync::DropGuard;

/// The group whose committed offset tells up to where an [`Archive`](crate::Archive) has removed records. It is stored
/// like any other, so it survives a restart. A topic with such an offset, even 0, is not trimmed.
pub(super) const ARCHIVE_GROUP: &str = "archive";

pub(super) struct Partition {
    /// Its id in the file.
    pub(super) id: i64,
    pub(super) name: TopicPartition,
    /// The first stored offset.
    pub(super) low: i64,
    /// The offset after the last record that is durable.
    pub(super) end: i64,
    /// The offset after the last record of the open transaction.
    pub(super) next: i64,
    /// The committed offset of each group.
    pub(super) committed: Vec<(Arc<str>, i64)>,
    /// Records written in this round, for the consumers.
    pub(super) written: Vec<Record>,
}

impl Partition {
    fn open(db: &Db, name: TopicPartition, id: i64) -> Result<Self, Error> {
        let (low, end) = db.bounds(id)?;
        let committed = db.committed(id)?;
        // The last record is never trimmed, so the file shows the end of the partition. A committed offset cannot lie
        // beyond the end.
        let end = committed.iter().map(|(_, next)| *next).fold(end, i64::max);
        Ok(Self { id, name, low, end, next: end, committed, written: Vec::new() })
    }

    pub(super) fn committed_by(&self, group: &str) -> Option<i64> {
        self.committed.iter().find(|(name, _)| **name == *group).map(|(_, next)| *next)
    }

    pub(super) fn set_committed(&mut self, group: &Arc<str>, next: i64) {
        match self.committed.iter_mut().find(|(name, _)| name == group) {
            Some((_, committed)) => *committed = next.max(*committed),
            None => self.committed.push((Arc::clone(group), next)),
        }
    }

    /// The offset up to which records may be removed: with trimming, the smallest committed offset of all groups;
    /// without trimming, the offset up to which an archive has removed records. The last record stays, because
    /// the end of the partition is read from it after a restart.
    fn trim_limit(&self, trim: bool, keep: u64) -> i64 {
        let committed = if trim {
            self.committed.iter().map(|(_, next)| *next).min()
        } else {
            self.committed_by(ARCHIVE_GROUP)
        };
        let committed = committed.unwrap_or(0);
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        committed.saturating_sub(keep).min(self.end - 1)
    }
}

/// Passes the records of one partition to one consumer.
pub(super) struct Feed {
    pub(super) queue: Arc<Queue>,
    /// The next offset to put into the queue.
    pub(super) fed: i64,
}

/// A consumer of a topic.
pub(super) struct Reader {
    pub(super) token: u64,
    pub(super) group: Arc<str>,
    /// Signals the consumer when the reader is dropped.
    pub(super) _gone: Arc<DropGuard>,
    /// One for each partition.
    pub(super) feeds: Vec<Feed>,
}

pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) trim: bool,
    pub(super) partitions: Vec<Partition>,
    pub(super) readers: Vec<Reader>,
    /// Records that wait until the consumer has caught up, in order.
    pub(super) held: VecDeque<Append>,
    /// Until this instant, records of the topic are rejected with this error.
    rejecting: Option<(Instant, ProduceError)>,
    pub(super) metrics: Backlog,
}

impl Topic {
    /// Like [`Partition::trim_limit`] of a partition. With trimming, the records that a consumer is reading stay, also those before the
    /// committed offset of its group.
    pub(super) fn trim_limit(&self, partition: usize, keep: u64) -> i64 {
        let limit = self.partitions[partition].trim_limit(self.trim, keep);
        let readers = self.readers.iter().filter(|_| self.trim);
        readers.map(|reader| reader.feeds[partition].queue.done()).fold(limit, i64::min)
    }

    pub(super) fn open(db: &Db, config: &LogTopic) -> Result<Self, Error> {
        let ids = db.topic(&config.name, config.partitions)?;
        if ids.len() != config.partitions.max(1) as usize {
            tracing::warn!(
                topic = %config.name, configured = config.partitions, partitions = ids.len(),
                "the topic keeps the number of partitions that it was created with"
            );
        }
        let open = |(number, id)| {
            let partition = i32::try_from(number).map_err(|_| Error::Topic {
                topic: config.name.to_string(),
                reason: "too many partitions".into(),
            })?;
            Partition::open(db, TopicPartition { topic: Arc::clone(&config.name), partition }, id)
        };
        let partitions: Vec<_> = ids.into_iter().enumerate().map(open).collect::<Result<_, _>>()?;
        let is_untrimmed = |partition: &Partition| partition.committed_by(ARCHIVE_GROUP).is_some();
        let mut topic = Self {
            name: Arc::clone(&config.name),
            trim: !partitions.iter().any(is_untrimmed),
            partitions,
            readers: Vec::new(),
            held: VecDeque::new(),
            rejecting: None,
            metrics: Backlog::new(&config.name),
        };
        topic.stop_trimming(db, config);
        Ok(topic)
    }

    /// Stops trimming if the configuration says so, and stores that in the file. After a restart another
    /// program may open the topic first and not know that its records must be kept.
    pub(super) fn stop_trimming(&mut self, db: &Db, config: &LogTopic) {
        if config.trim || !self.trim {
            return;
        }
        self.trim = false;
        let write = || -> Result<(), Error> {
            db.begin()?;
            let mut partitions = self.partitions.iter();
            partitions.try_for_each(|partition| db.set_committed(ARCHIVE_GROUP, partition.id, 0))?;
            db.commit()
        };
        if let Err(error) = write() {
            db.rollback();
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, topic = %self.name, "the log stopped trimming a topic but cannot store that");
        }
    }

    /// Rejects the records of this topic for a moment, because one of them has failed. Later records must not
    /// overtake it when its sender retries it, so they fail as well until the sender knows.
    pub(super) fn reject(&mut self, reason: ProduceError, now: Instant) {
        self.rejecting = Some((now + FAILURE_PAUSE, reason));
    }

    /// The error with which held records are rejected now.
    pub(super) fn rejection(&mut self, now: Instant) -> Option<ProduceError> {
        self.rejecting.take_if(|(until, _)| *until <= now);
        self.rejecting.as_ref().map(|(_, reason)| reason.clone())
    }

    /// Number of records that the slowest consumer has not processed. 0 without a consumer.
    pub(super) fn backlog(&self) -> usize {
        let of = |reader: &Reader| -> i64 {
            let partitions = self.partitions.iter().zip(&reader.feeds);
            partitions.map(|(partition, feed)| (partition.end - feed.queue.done()).max(0)).sum()
        };
        self.readers.iter().map(of).max().and_then(|records| usize::try_from(records).ok()).unwrap_or(0)
    }

    /// How many records may be written now.
    pub(super) fn room(&self, max_backlog: usize) -> usize {
        if self.readers.is_empty() { usize::MAX } else { max_backlog.saturating_sub(self.backlog()) }
    }
}

/// Index and number of partitions of each open topic. Only the log thread adds topics, at the end.
#[derive(Debug, Default)]
pub(super) struct TopicNames(RwLock<Vec<(Arc<str>, usize)>>);

impl TopicNames {
    pub(super) fn new(topics: &[Topic]) -> Self {
        Self(RwLock::new(topics.iter().map(|t| (Arc::clone(&t.name), t.partitions.len())).collect()))
    }

    pub(super) fn add(&self, name: &Arc<str>, partitions: usize) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push((Arc::clone(name), partitions));
    }

    /// Index and number of partitions of a topic.
    pub(super) fn find(&self, name: &str) -> Option<(usize, usize)> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let index = topics.iter().position(|(known, _)| **known == *name)?;
        Some((index, topics[index].1))
    }
}

pub(super) fn open(db: &Db, config: &LogConfig) -> Result<Vec<Topic>, Error> {
    config.topics.iter().map(|topic| Topic::open(db, topic)).collect()
}

/// Gives written records to the readers that have read everything before them. `first` is the offset of the
/// first record.
pub(super) fn feed(readers: &mut [Reader], number: usize, first: i64, written: &mut Vec<Record>) {
    if written.is_empty() {
        return;
    }
    let mut current = readers
        .iter_mut()
        .map(|reader| &mut reader.feeds[number])
        .filter(|feed| feed.fed == first)
        .peekable();
    while let Some(feed) = current.next() {
        let added = if current.peek().is_some() {
            feed.queue.extend(written.iter().cloned())
        } else {
            feed.queue.extend(written.drain(..))
        };
        feed.fed += i64::try_from(added).unwrap_or(0);
    }
    written.clear();
}
