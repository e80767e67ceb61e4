//! Records as they are produced, stored and consumed, and their positions.

mod records;

pub use records::Records;

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Names and values of the headers of a record.
pub type Headers = Vec<(String, Bytes)>;

/// A record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition of the topic, from 0.
    pub partition: i32,
    /// The position in the partition, from 0. Offsets are monotonic; a gap means that records were removed.
    pub offset: i64,
    /// The key. Records with the same key are in one partition, in the order in which they were enqueued.
    pub key: Bytes,
    /// The content.
    pub payload: Bytes,
    /// The headers.
    pub headers: Headers,
    /// When the log accepted the record (Kafka: when the producer did), in milliseconds since 1970.
    pub timestamp_ms: i64,
}

impl Record {
    /// Its partition and offset.
    pub fn position(&self) -> Position {
        Position { partition: self.partition, offset: self.offset }
    }

    /// Bytes that count against limits: key, payload and headers.
    pub fn size(&self) -> usize {
        size(&self.key, &self.payload, &self.headers)
    }
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerRecord {
    /// The topic to write to.
    pub topic: Arc<str>,
    /// The key, which determines the partition. Records with the same key are kept in order.
    pub key: Bytes,
    /// The content.
    pub payload: Bytes,
    /// The headers.
    pub headers: Headers,
}

impl ProducerRecord {
    /// A record without headers.
    pub fn new(topic: Arc<str>, key: impl Into<Bytes>, payload: impl Into<Bytes>) -> Self {
        Self { topic, key: key.into(), payload: payload.into(), headers: Vec::new() }
    }

    /// Bytes that count against limits: key, payload and headers.
    pub fn size(&self) -> usize {
        size(&self.key, &self.payload, &self.headers)
    }
}

fn size(key: &Bytes, payload: &Bytes, headers: &Headers) -> usize {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    key.len() + payload.len() + headers
}

/// The partition and offset of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition of the topic.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Records of one partition, in order. They were queued while the previous batch was in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The topic of all the records.
    pub topic: Arc<str>,
    /// The partition of all the records.
    pub partition: i32,
    /// At least one record, by ascending offset.
    pub records: Records,
    /// The offset after the last record that was handled before this batch; at the start, the start offset. Offsets between it and the
    /// first record have no record. `None`: unknown, at the start on Kafka without
    /// [`start_offsets`](crate::Consumer::start_offsets).
    pub follows: Option<i64>,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// One record, as a handler gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The record.
    pub record: Record,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// A [`Message`] or a [`Batch`], so that layers work for both.
pub trait Delivered {
    /// The topic.
    fn topic(&self) -> &str;
    /// The partition.
    fn partition(&self) -> i32;
    /// The offset of the first record.
    fn first_offset(&self) -> i64;
    /// The number of records.
    fn count(&self) -> usize;
    /// The number of this attempt, from 1.
    fn attempt(&self) -> u32;
    /// The headers of the first record.
    fn headers(&self) -> &[(String, Bytes)];
}

impl Delivered for Message {
    fn topic(&self) -> &str {
        &self.record.topic
    }

    fn partition(&self) -> i32 {
        self.record.partition
    }

    fn first_offset(&self) -> i64 {
        self.record.offset
    }

    fn count(&self) -> usize {
        1
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }

    fn headers(&self) -> &[(String, Bytes)] {
        &self.record.headers
    }
}

impl Delivered for Batch {
    fn topic(&self) -> &str {
        &self.topic
    }

    fn partition(&self) -> i32 {
        self.partition
    }

    fn first_offset(&self) -> i64 {
        self.records.first().map_or(-1, |record| record.offset)
    }

    fn count(&self) -> usize {
        self.records.len()
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }

    fn headers(&self) -> &[(String, Bytes)] {
        self.records.first().map_or(&[], |record| &record.headers)
    }
}
