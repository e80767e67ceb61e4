//! Settings of the embedded log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A topic of the embedded log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTopic {
    /// Name of the topic.
    pub name: Arc<str>,
    /// Number of partitions of a new topic. An existing topic keeps its number, because another number would
    /// break the order per key.
    pub partitions: u32,
    /// Whether the log removes records that every group has committed. Set `false` for topics that people
    /// inspect, such as dead letters; only an [`Archive`](crate::Archive) removes their records. The log stores
    /// `false` permanently: one program must not lose records because another opens the same topic with `true`.
    pub trim: bool,
}

impl LogTopic {
    /// A topic whose records are removed once every group has committed them.
    pub fn new(name: impl Into<Arc<str>>, partitions: u32) -> Self {
        Self { name: name.into(), partitions, trim: true }
    }

    /// A topic with one partition whose records are not trimmed.
    pub fn untrimmed(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), partitions: 1, trim: false }
    }
}

/// Settings of the embedded log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Directory of the files. Created if missing. Only one process at a time can open it.
    pub directory: PathBuf,
    /// Topics to open.
    pub topics: Vec<LogTopic>,
    /// Limit of unprocessed records per topic. Beyond it, new records wait for the consumer.
    pub max_backlog: usize,
    /// Limit of records that wait to be written, over all topics. Beyond it, `enqueue` fails with
    /// [`QueueFull`](crate::ProduceError::QueueFull).
    pub max_queued: usize,
    /// Limit of bytes that wait to be written.
    pub max_queued_bytes: usize,
    /// How long a record may wait to be written. After that it fails with
    /// [`TimedOut`](crate::ProduceError::TimedOut), and so do all records of its topic that wait behind it.
    pub produce_timeout: Duration,
    /// Largest record in bytes: key, payload and headers.
    pub max_record_bytes: usize,
    /// Number of committed records that are kept per partition. The last record is always kept.
    pub keep: u64,
    /// Largest size of the log's file. At this size appends fail until trimming has made room. `None`: limited
    /// by the disk only.
    pub max_file_bytes: Option<u64>,
}

impl LogConfig {
    /// A log in `directory` with the defaults: a backlog of 2,000 records, a queue of 16,384 records or 64 MiB,
    /// 5 s to write a record, records of up to 1 MiB, no committed records kept.
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
