//! Runs: records that are handed over together.
//!
//! librdkafka returns records one by one, mostly many of one partition in a row. A run collects them as long as
//! the next one is available at once, so that looking up the partition, locking its queue and waking its worker
//! are paid for once per run. Keys and payloads are copied one after the other into shared buffers, which saves
//! two allocations per record. A buffer is small, because a handler that keeps one record keeps the whole
//! buffer.

use super::assignment::Assignment;
use super::owned::OwnedPartition;
use crate::record::{Record, TopicPartition};
use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::types::RDKafkaTopic;
use std::ptr;
use std::sync::Arc;

/// Limit of records in a run, so that the worker can start while the rest is being read.
const MAX_RECORDS: usize = 1_000;
/// Limit of bytes in a run.
const MAX_BYTES: usize = 256 << 10;
/// Size of a shared buffer in bytes.
const BUFFER: usize = 16 << 10;
/// A larger record gets its own buffer.
const SHARED_UP_TO: usize = 2 << 10;

/// Records of one partition.
pub(super) struct Run {
    owned: Option<Arc<OwnedPartition>>,
    /// The address of librdkafka's object for the topic, which is unique while the partition is assigned. It is
    /// only compared, never dereferenced; comparing names costs more.
    address: *const RDKafkaTopic,
    /// The topic of the records. Not the partition's `Arc`: this thread and the workers would contend for its
    /// counter.
    topic: Arc<str>,
    records: Vec<Record>,
    bytes: usize,
    buffer: BytesMut,
    with_headers: bool,
}

impl Run {
    /// An empty run. librdkafka parses headers only if `with_headers` is set.
    pub(super) fn new(with_headers: bool) -> Self {
        Self {
            owned: None,
            address: ptr::null(),
            topic: Arc::default(),
            records: Vec::new(),
            bytes: 0,
            buffer: BytesMut::new(),
            with_headers,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether a record belongs to this run and the run has room for it.
    pub(super) fn accepts(&self, message: &BorrowedMessage<'_>) -> bool {
        let is_same =
            |owned: &Arc<OwnedPartition>| owned.partition == message.partition() && !owned.is_closed();
        self.records.len() < MAX_RECORDS
            && self.bytes < MAX_BYTES
            && ptr::eq(self.address, message.topic_ptr())
            && self.owned.as_ref().is_some_and(is_same)
    }

    /// Starts a run of the partition of a record, after [`hand_over`](Self::hand_over).
    pub(super) fn begin(&mut self, assignment: &Assignment, message: &BorrowedMessage<'_>) {
        assignment.ready();
        self.owned = assignment.owned(message.topic(), message.partition());
        self.address = message.topic_ptr();
        self.topic = message.topic().into();
    }

    /// Adds a record. Drops it if it is a duplicate or its partition was taken away.
    pub(super) fn add(&mut self, message: &BorrowedMessage<'_>) {
        if self.owned.as_ref().is_some_and(|owned| owned.advance(message.offset())) {
            let record = self.record(message);
            self.bytes += record.size();
            self.records.push(record);
        }
    }

    /// Hands the records to the worker. Returns the partition if its queue is full and it must be paused now.
    pub(super) fn hand_over(&mut self) -> Option<TopicPartition> {
        let owned = self.owned.as_ref().filter(|_| !self.records.is_empty())?;
        self.bytes = 0;
        // The next run probably has the same length.
        let next = Vec::with_capacity(self.records.len());
        let full = owned.queue.push(std::mem::replace(&mut self.records, next)) && owned.pause();
        full.then(|| TopicPartition { topic: Arc::clone(&owned.topic), partition: owned.partition })
    }

    fn record(&mut self, message: &BorrowedMessage<'_>) -> Record {
        let (key, payload) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
        let headers = if self.with_headers { message.headers() } else { None };
        let headers = headers.map(|headers| {
            let value = |value: Option<&[u8]>| Bytes::copy_from_slice(value.unwrap_or_default());
            headers.iter().map(|header| (header.key.to_owned(), value(header.value))).collect()
        });
        let (key, payload) = self.copy(key, payload);
        Record {
            topic: Arc::clone(&self.topic),
            partition: message.partition(),
            offset: message.offset(),
            key,
            payload,
            headers: headers.unwrap_or_default(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        }
    }

    fn copy(&mut self, key: &[u8], payload: &[u8]) -> (Bytes, Bytes) {
        let size = key.len() + payload.len();
        let mut own;
        let buffer = if size > SHARED_UP_TO {
            own = BytesMut::with_capacity(size);
            &mut own
        } else {
            if self.buffer.capacity() < size {
                self.buffer = BytesMut::with_capacity(BUFFER);
            }
            &mut self.buffer
        };
        let mut take = |bytes: &[u8]| {
            if bytes.is_empty() {
                return Bytes::new();
            }
            buffer.extend_from_slice(bytes);
            buffer.split().freeze()
        };
        (take(key), take(payload))
    }
}
