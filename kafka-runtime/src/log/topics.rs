//! What the log's thread knows of each topic: where partitions end, who reads them, what is held back.

use super::archive;
use super::config::{LogConfig, LogTopic};
use super::db::Db;
use super::inbox::Append;
use crate::error::Error;
use crate::metrics::Backlog;
use crate::producer::{NOTICE, ProduceError};
use crate::record::{Record, TopicPartition};
use crate::source::Queue;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tokio_util::sync::DropGuard;

pub(super) struct Partition {
    /// Its id in the file.
    pub(super) id: i64,
    pub(super) name: TopicPartition,
    /// The first offset that is kept.
    pub(super) low: i64,
    /// The next offset after what is committed to the disk.
    pub(super) end: i64,
    /// The next offset within the open transaction.
    pub(super) next: i64,
    /// Every group's committed offset.
    pub(super) committed: Vec<(Arc<str>, i64)>,
    /// What was written in this round, for the consumers.
    pub(super) written: Vec<Record>,
}

impl Partition {
    fn open(db: &Db, name: TopicPartition, id: i64) -> Result<Self, Error> {
        let (low, end) = db.bounds(id)?;
        let committed = db.committed(id)?;
        // The last record is never trimmed, so the file itself tells where to go on; a committed offset can't lie behind.
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

    /// Up to where records may be removed: what every group has committed, or, where records are kept, what an archive has
    /// removed. Never the last record, from which the end is known after a restart.
    pub(super) fn trim_limit(&self, trim: bool, keep: u64) -> i64 {
        let committed = if trim {
            self.committed.iter().map(|(_, next)| *next).min()
        } else {
            self.committed_by(archive::GROUP)
        };
        let committed = committed.unwrap_or(0);
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        committed.saturating_sub(keep).min(self.end - 1)
    }
}

/// The way of a partition's records to a consumer.
pub(super) struct Feed {
    pub(super) queue: Arc<Queue>,
    /// The next offset to be put into the queue.
    pub(super) fed: i64,
}

/// A consumer of a topic.
pub(super) struct Reader {
    pub(super) token: u64,
    pub(super) group: Arc<str>,
    /// Tells the consumer when this goes.
    pub(super) _gone: Arc<DropGuard>,
    /// By partition.
    pub(super) feeds: Vec<Feed>,
}

pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) trim: bool,
    pub(super) partitions: Vec<Partition>,
    pub(super) readers: Vec<Reader>,
    /// Records that wait until the consumer has caught up, in order.
    pub(super) held: VecDeque<Append>,
    /// Records that come until then are given up too, for this reason.
    given_up: Option<(Instant, ProduceError)>,
    pub(super) metrics: Backlog,
}

impl Topic {
    pub(super) fn open(db: &Db, config: &LogTopic) -> Result<Self, Error> {
        let ids = db.topic(&config.name, config.partitions)?;
        if ids.len() != config.partitions.max(1) as usize {
            tracing::warn!(
                topic = %config.name, configured = config.partitions, kept = ids.len(),
                "the log keeps the number of partitions that the topic was made with"
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
        let is_kept = |partition: &Partition| partition.committed_by(archive::GROUP).is_some();
        let mut topic = Self {
            name: Arc::clone(&config.name),
            trim: !partitions.iter().any(is_kept),
            partitions,
            readers: Vec::new(),
            held: VecDeque::new(),
            given_up: None,
            metrics: Backlog::new(&config.name),
        };
        topic.keep(db, config);
        Ok(topic)
    }

    /// Stops trimming, if that is what the configuration says. The file says so from then on: whoever opens the topic first after
    /// a restart may not know of who keeps it.
    pub(super) fn keep(&mut self, db: &Db, config: &LogTopic) {
        if config.trim || !self.trim {
            return;
        }
        self.trim = false;
        let write = || -> Result<(), Error> {
            db.begin()?;
            let mut partitions = self.partitions.iter();
            partitions.try_for_each(|partition| db.set_committed(archive::GROUP, partition.id, 0))?;
            db.commit()
        };
        if let Err(error) = write() {
            db.rollback();
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, topic = %self.name, "the log keeps a topic, but can't write that down");
        }
    }

    /// A record is given up: what is behind it must not overtake it when it is sent again, so it is given up as well until who
    /// sent them has heard of it.
    pub(super) fn give_up(&mut self, reason: ProduceError, now: Instant) {
        self.given_up = Some((now + NOTICE, reason));
    }

    /// Why what is held now is given up, if it is.
    pub(super) fn gives_up(&mut self, now: Instant) -> Option<ProduceError> {
        self.given_up.take_if(|(until, _)| *until <= now);
        self.given_up.as_ref().map(|(_, reason)| reason.clone())
    }

    /// Records that the slowest consumer has not done. Without a consumer there is no backlog.
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

/// The open topics by index, with their numbers of partitions. Only the log's thread adds some, behind the others.
#[derive(Debug, Default)]
pub(super) struct TopicNames(RwLock<Vec<(Arc<str>, usize)>>);

impl TopicNames {
    pub(super) fn new(topics: &[Topic]) -> Self {
        Self(RwLock::new(topics.iter().map(|t| (Arc::clone(&t.name), t.partitions.len())).collect()))
    }

    pub(super) fn add(&self, name: &Arc<str>, partitions: usize) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push((Arc::clone(name), partitions));
    }

    /// A topic's index and its number of partitions.
    pub(super) fn find(&self, name: &str) -> Option<(usize, usize)> {
        let topics = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let index = topics.iter().position(|(known, _)| **known == *name)?;
        Some((index, topics[index].1))
    }
}

/// Opens all topics of the configuration.
pub(super) fn open(db: &Db, config: &LogConfig) -> Result<Vec<Topic>, Error> {
    config.topics.iter().map(|topic| Topic::open(db, topic)).collect()
}
