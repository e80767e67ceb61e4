//! Records that are handed over together.
//!
//! librdkafka gives records one by one, most of the time many of one partition in a row. They are gathered here for as long
//! as the next one is there already, so that the look-up of the partition, its lock and the wake-up of its worker are paid
//! for once. Keys and payloads are copied one behind the other into shared buffers, which saves two allocations a record; a
//! buffer is small, because one record that somebody keeps holds all of it.

use super::assignment::{Assignment, Slot};
use crate::record::{Record, TopicPartition};
use bytes::{Bytes, BytesMut};
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::types::RDKafkaTopic;
use std::ptr;
use std::sync::Arc;

/// A run of so many records is handed over, so that the worker begins while the rest is being read.
const MAX_RECORDS: usize = 1_000;
/// A run of so many bytes is handed over.
const MAX_BYTES: usize = 256 << 10;
/// Bytes of a shared buffer.
const BUFFER: usize = 16 << 10;
/// Larger records get a buffer of their own.
const SHARED_UP_TO: usize = 2 << 10;

/// Records of one partition.
pub(super) struct Run {
    slot: Option<Arc<Slot>>,
    /// The address of librdkafka's object for the topic, which is not another topic's while the partition is assigned. It
    /// is never read through; comparing it is cheaper than comparing names.
    address: *const RDKafkaTopic,
    /// The topic of the records. Not the slot's: a counter that this thread and the workers write all the time is slow.
    topic: Arc<str>,
    records: Vec<Record>,
    bytes: usize,
    buffer: BytesMut,
    with_headers: bool,
}

impl Run {
    /// An empty one. `with_headers`: whether headers are read; librdkafka parses them only then.
    pub(super) fn new(with_headers: bool) -> Self {
        Self {
            slot: None,
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

    /// Whether a record belongs to this run and there is room for it.
    pub(super) fn takes(&self, message: &BorrowedMessage<'_>) -> bool {
        let serves = |slot: &Arc<Slot>| slot.partition == message.partition() && !slot.is_gone();
        self.records.len() < MAX_RECORDS
            && self.bytes < MAX_BYTES
            && ptr::eq(self.address, message.topic_ptr())
            && self.slot.as_ref().is_some_and(serves)
    }

    /// Begins another run, with the partition of a record, after [`hand_over`](Self::hand_over).
    pub(super) fn begin(&mut self, assignment: &Assignment, message: &BorrowedMessage<'_>) {
        assignment.ready();
        self.slot = assignment.slot(message.topic(), message.partition());
        self.address = message.topic_ptr();
        self.topic = message.topic().into();
    }

    /// Adds a record. One that came before, or whose partition has gone, is dropped.
    pub(super) fn add(&mut self, message: &BorrowedMessage<'_>) {
        if self.slot.as_ref().is_some_and(|slot| slot.advance(message.offset())) {
            let record = self.record(message);
            self.bytes += record.size();
            self.records.push(record);
        }
    }

    /// Gives the records to the worker. Returns the partition if its queue is full and it should be paused now.
    pub(super) fn hand_over(&mut self) -> Option<TopicPartition> {
        let slot = self.slot.as_ref().filter(|_| !self.records.is_empty())?;
        self.bytes = 0;
        // The next run is probably as long.
        let next = Vec::with_capacity(self.records.len());
        let full = slot.queue.push(std::mem::replace(&mut self.records, next)) && slot.pause();
        full.then(|| TopicPartition { topic: Arc::clone(&slot.topic), partition: slot.partition })
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
