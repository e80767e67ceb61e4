//! Records: what goes in, what comes out, and where it lies.

mod records;

pub use records::Records;

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// Names and values that travel beside a payload.
pub type Headers = Vec<(String, Bytes)>;

/// A record as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The topic that it lies in.
    pub topic: Arc<str>,
    /// The partition of the topic, from 0.
    pub partition: i32,
    /// Its place in the partition, from 0. Grows; a gap means that records were removed.
    pub offset: i64,
    /// Records of one key lie in one partition, in the order in which they were enqueued.
    pub key: Bytes,
    /// What the record says.
    pub payload: Bytes,
    /// Names and values beside the payload.
    pub headers: Headers,
    /// When the log took it (Kafka: when the producer did), in milliseconds since 1970.
    pub timestamp_ms: i64,
}

impl Record {
    /// Where it lies in its topic.
    pub fn position(&self) -> Position {
        Position { partition: self.partition, offset: self.offset }
    }

    /// Bytes that count against limits: key, payload and headers.
    pub fn size(&self) -> usize {
        size(&self.key, &self.payload, &self.headers)
    }
}

/// A record on its way to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerRecord {
    /// The topic to write to.
    pub topic: Arc<str>,
    /// What decides the partition, and so what is kept in order.
    pub key: Bytes,
    /// What the record says.
    pub payload: Bytes,
    /// Names and values beside the payload.
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

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition of the topic.
    pub partition: i32,
    /// The place in the partition.
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

/// Records of one partition, in order: what had queued up while the last batch was in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The topic of all the records.
    pub topic: Arc<str>,
    /// The partition of all the records.
    pub partition: i32,
    /// At least one record, by ascending offset.
    pub records: Records,
    /// 1 at first, one more each time that the same records are handed over after a failure.
    pub attempt: u32,
}

/// One record as it is handed to a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The record, with where it lies, its key, headers and time.
    pub record: Record,
    /// 1 at first, one more each time that the record is handed over after a failure.
    pub attempt: u32,
}

/// What is handed to a handler, be it a [`Message`] or a [`Batch`]: layers are written against this, once.
pub trait Delivered {
    /// The topic that it was read from.
    fn topic(&self) -> &str;
    /// The partition that it was read from.
    fn partition(&self) -> i32;
    /// The offset of its first record.
    fn first_offset(&self) -> i64;
    /// How many records it has.
    fn count(&self) -> usize;
    /// How often it has been handed over, counted from 1.
    fn attempt(&self) -> u32;
    /// The headers of its first record.
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
