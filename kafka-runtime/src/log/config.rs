//! Settings of the embedded log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A topic of the embedded log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTopic {
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions when it is made. A log that has the topic already keeps the number that it has: another number would
    /// break the order per key.
    pub partitions: u32,
    /// Whether records that every group has committed are removed. Off for topics that people look at, such as dead
    /// letters: there only an [`Archive`](crate::Archive) removes. Once off it stays off, whoever opens the topic with what:
    /// those who keep it must not lose records to those who don't.
    pub trim: bool,
}

impl LogTopic {
    /// A topic whose records go once they are committed.
    pub fn new(name: impl Into<Arc<str>>, partitions: u32) -> Self {
        Self { name: name.into(), partitions, trim: true }
    }

    /// A topic with one partition whose records stay.
    pub fn kept(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), partitions: 1, trim: false }
    }
}

/// Settings of the embedded log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Folder that holds its files. Made if missing; one process at a time.
    pub directory: PathBuf,
    /// All topics.
    pub topics: Vec<LogTopic>,
    /// While the consumer of a topic has so many records of it not done, new ones wait.
    pub max_backlog: usize,
    /// Most records that wait to be written, over all topics; then enqueueing fails with
    /// [`QueueFull`](crate::ProduceError::QueueFull).
    pub max_queued: usize,
    /// Most bytes that wait to be written.
    pub max_queued_bytes: usize,
    /// A record that is not being written by then is answered [`TimedOut`](crate::ProduceError::TimedOut), and so is all of its
    /// topic that waits behind it.
    pub produce_timeout: Duration,
    /// Largest record: key, payload and headers.
    pub max_record_bytes: usize,
    /// So many committed records per partition are kept. The last one always is.
    pub keep: u64,
    /// The file of the log grows no further than this; then appends fail until trimming has made room. `None`: as long as
    /// the disk has room.
    pub max_file_bytes: Option<u64>,
}

impl LogConfig {
    /// A log in `directory` with the defaults: a backlog of 2,000 records, 16,384 records or 64 MiB queued, 5 s to be
    /// written, records of up to 1 MiB, nothing kept once it is committed.
    pub fn new(directory: impl Into<PathBuf>, topics: Vec<LogTopic>) -> Self {
        Self {
            directory: directory.into(),
            topics,
            max_backlog: 2_000,
            max_queued: 16_384,
            max_queued_bytes: 64 << 20,
            produce_timeout: Duration::from_secs(5),
            max_record_bytes: 1 << 20,
            keep: 0,
            max_file_bytes: None,
        }
    }
}
