//! The embedded log: durable records in one SQLite file. One thread writes; it commits all queued records in
//! one transaction.
//!
//! - A record is acknowledged after its transaction was fsynced. Consumers see it only then.
//! - Records of one key go to one partition, in the order in which they were enqueued. Offsets count from 0
//!   without gaps and are never reused.
//! - Consumers take records from memory. Only a consumer that has fallen behind reads from SQLite.
//! - Backpressure: while the consumer of a topic is [`max_backlog`](LogConfig::max_backlog) records behind, new
//!   records of that topic wait. A record that waits too long fails with `TimedOut` and is never written.
//! - When the disk is full or failing, appends fail with `Unavailable` and leave no trace. The log resumes by
//!   itself as soon as the disk works again.

mod archive;
mod config;
mod db;
mod engine;
pub mod headers;
mod inbox;
mod shared;
mod source;
mod topics;

pub use archive::LogArchive;
pub use config::{LogConfig, LogTopic};
pub use source::LogSource;

use crate::error::Error;
use crate::health::{Health, HealthCell};
use crate::metrics::Produced;
use crate::producer::{Delivery, InFlight, OnDelivery, ProduceError, Producer};
use crate::record::{ProducerRecord, Record, TopicPartition};
use async_trait::async_trait;
use db::Db;
use engine::Engine;
use inbox::{Append, Command, Inbox};
use shared::Shared;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use topics::TopicNames;

const FILE: &str = "log.db";
const LOCK: &str = "log.lock";

/// An open log. Clones are handles to the same log. Dropping the last handle writes the queued records and
/// closes the log.
#[derive(Clone)]
pub struct Log(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    path: PathBuf,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Log").field(&self.0.path).finish()
    }
}

impl Log {
    /// Opens the log, or creates it. Blocks for as long as the disk needs.
    pub fn open(config: LogConfig) -> Result<Self, Error> {
        let at = |path: &PathBuf| {
            let path = path.clone();
            move |source| Error::File { path, source }
        };
        std::fs::create_dir_all(&config.directory).map_err(at(&config.directory))?;
        let lock_path = config.directory.join(LOCK);
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked { path: lock_path }),
            Err(TryLockError::Error(source)) => return Err(at(&lock_path)(source)),
        }
        let path = config.directory.join(FILE);
        let db = Db::open(&path, config.max_file_bytes).map_err(unusable(&path))?;
        let topics = topics::open(&db, &config).map_err(unusable(&path))?;
        let shared = Arc::new(Shared {
            inbox: Arc::new(Inbox::new(config.max_queued, config.max_queued_bytes)),
            in_flight: InFlight::default(),
            health: HealthCell::new(Health::Ready),
            produced: Produced::new(),
            topics: TopicNames::new(&topics),
            config,
        });
        let engine = Engine::new(Arc::clone(&shared), db, topics);
        let run = move || {
            engine.run();
            // The lock is released only after the file is closed.
            drop(lock);
        };
        let name = "godwit-log";
        let thread = thread::Builder::new().name(name.into()).spawn(run);
        let thread = thread.map_err(|source| Error::Thread { name, source })?;
        Ok(Self(Arc::new(Handle { shared, path, thread: Mutex::new(Some(thread)) })))
    }

    /// Opens more topics, or creates them. Topics that are already open keep their settings, except
    /// [`trim`](LogTopic::trim). Blocks for as long as the disk needs.
    pub fn add_topics(&self, topics: Vec<LogTopic>) -> Result<(), Error> {
        let (reply, added) = std::sync::mpsc::sync_channel(1);
        self.0.shared.inbox.command(Command::AddTopics { topics, reply });
        added.recv().map_err(|_| Error::Closed)?
    }

    /// Reads `topics` as `group`. Starts at the offsets that the group has committed, or else at the first
    /// stored record (see [`LogSource::initial_offset`]). All partitions go to this one consumer: the log
    /// allows one consumer per group and topic. From now on the log keeps the records that the group has not
    /// read, until the group is [deleted](Self::delete_group).
    ///
    /// # Errors
    /// The log has no such topic, or the group is named `archive`.
    pub fn source(&self, group: &str, topics: &[&str]) -> Result<LogSource, Error> {
        not_reserved(group)?;
        let find = |name: &&str| {
            let topic = self.0.shared.topics.find(name).map(|(index, _)| index);
            topic.ok_or_else(|| Error::Topic { topic: (*name).to_owned(), reason: "not in the log".into() })
        };
        let topics = topics.iter().map(find).collect::<Result<_, _>>()?;
        Ok(LogSource::new(self.clone(), group.into(), topics))
    }

    /// Deletes the committed offsets of a group in all topics. The log no longer keeps records for it; if it returns,
    /// it is a new group. Use this for a group that will not return, because otherwise its unread records are kept
    /// forever. Blocks for as long as the disk needs.
    ///
    /// # Errors
    /// The group is reading now, its name is `archive`, or the disk fails.
    pub fn delete_group(&self, group: &str) -> Result<(), Error> {
        not_reserved(group)?;
        let (reply, deleted) = std::sync::mpsc::sync_channel(1);
        self.0.shared.inbox.command(Command::DeleteGroup { group: group.into(), reply });
        deleted.recv().map_err(|_| Error::Closed)?
    }

    /// Access to a whole topic, for tools.
    ///
    /// # Errors
    /// The log has no such topic.
    pub fn archive(&self, topic: &str) -> Result<LogArchive, Error> {
        match self.partitions(topic) {
            Some(_) => Ok(LogArchive::new(self.clone(), topic.into())),
            None => Err(Error::Topic { topic: topic.to_owned(), reason: "not in the log".into() }),
        }
    }

    /// Up to `limit` records of a partition, starting at offset `from`. For tools and tests. Opens its own
    /// connection to the file; blocks.
    pub fn read(&self, topic: &str, partition: i32, from: i64, limit: usize) -> Result<Vec<Record>, Error> {
        let (db, id) = self.look_up(topic, partition)?;
        db.read((id, &TopicPartition { topic: topic.into(), partition }), from, limit)
    }

    /// The offset at which `group` resumes in a partition; `None` if it has never read the partition. Blocks,
    /// like [`read`](Self::read).
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Result<Option<i64>, Error> {
        let (db, id) = self.look_up(topic, partition)?;
        db.committed_by(group, id)
    }

    /// The number of partitions of a topic; `None` if the log does not have the topic.
    pub fn partitions(&self, topic: &str) -> Option<usize> {
        self.0.shared.topics.find(topic).map(|(_, partitions)| partitions)
    }

    fn look_up(&self, topic: &str, partition: i32) -> Result<(Db, i64), Error> {
        let db = Db::open_to_read(&self.0.path)?;
        let ids = db.partitions(topic)?;
        let id = usize::try_from(partition).ok().and_then(|number| ids.get(number).copied());
        match id {
            Some(id) => Ok((db, id)),
            None => Err(Error::Topic { topic: topic.into(), reason: format!("no partition {partition}") }),
        }
    }
}

#[async_trait]
impl Producer for Log {
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError> {
        let shared = &self.0.shared;
        let result = self.prepare(record, on_delivery).and_then(|append| {
            shared.in_flight.begin(1);
            shared.inbox.append(append).inspect_err(|_| shared.in_flight.end(1))
        });
        if let Err(error) = &result {
            shared.produced.failed(error);
        }
        result
    }

    async fn flush(&self, deadline: Duration) -> Result<(), ProduceError> {
        self.0.shared.in_flight.wait_idle(deadline).await
    }

    fn health(&self) -> Health {
        self.0.shared.health.get()
    }

    fn ready(&self) -> bool {
        self.0.shared.health.is_ready()
    }
}

impl Log {
    fn prepare(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<Append, ProduceError> {
        let config = &self.0.shared.config;
        let size = record.size();
        if size > config.max_record_bytes {
            return Err(ProduceError::TooLarge);
        }
        let Some((topic, partitions)) = self.0.shared.topics.find(&record.topic) else {
            return Err(ProduceError::Refused { reason: format!("no topic {}", record.topic) });
        };
        let partition = partition_of(&record.key, partitions);
        let delivery = Delivery::new(on_delivery);
        Ok(Append { record, delivery, size, topic, partition, enqueued: Instant::now() })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.inbox.close();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // If a delivery callback held the last handle, this runs on the log thread, which cannot join itself.
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the log thread panicked");
        }
    }
}

/// Names the file in an error of SQLite.
fn unusable(path: &Path) -> impl Fn(Error) -> Error {
    |error| match error {
        Error::Sqlite { source, .. } => Error::Open { path: path.to_owned(), source },
        error => error,
    }
}

/// Copies a snapshot of the log in `directory` to the directory `copy`. The log may be in use. Blocks for as
/// long as the disk needs.
///
/// # Errors
/// There is no log to copy, the target directory has a log already, or a file cannot be used.
pub fn back_up(directory: &Path, copy: &Path) -> Result<(), Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    std::fs::create_dir_all(copy).map_err(at(copy))?;
    let (from, to) = (directory.join(FILE), copy.join(FILE));
    Db::open_to_read(&from).and_then(|db| db.copy(&to)).map_err(unusable(&from))?;
    let synced = |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(at(path));
    synced(&to).and_then(|()| synced(copy))
}

/// Refuses the log's internal group. A commit under that name would delete records of topics that are not
/// trimmed.
fn not_reserved(group: &str) -> Result<(), Error> {
    if group == topics::ARCHIVE_GROUP {
        Err(Error::ReservedGroup { group: group.to_owned() })
    } else {
        Ok(())
    }
}

/// FNV-1a. Implemented here because it must never change: it decides the partition of each key.
fn partition_of(key: &[u8], partitions: usize) -> usize {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    usize::try_from(hash % partitions.max(1) as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_never_move_to_another_partition() {
        let partitions = ["", "a", "app/d:alice:bob", "app/g:1"].map(|key| partition_of(key.as_bytes(), 12));
        assert_eq!(partitions, [5, 4, 4, 11]);
    }
}
