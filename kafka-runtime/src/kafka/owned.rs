//! A partition that a member of a consumer group owns.

use crate::source::Queue;
use rdkafka::statistics::Partition;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// A partition that this member owns. Only the polling thread uses it. The fields are atomic because the
/// context of a client must be `Sync`.
pub(super) struct OwnedPartition {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) queue: Arc<Queue>,
    paused: AtomicBool,
    /// The offset after the last received record; a record below it is a duplicate and is dropped. 0 before the
    /// first record.
    next: AtomicI64,
    /// The offset of the first received record: the position of a group that has not committed. -1 before.
    first: AtomicI64,
    /// The end of the partition at the last query, or -1.
    end: AtomicI64,
    /// The partition was taken away and its queue is closed.
    closed: AtomicBool,
}

impl OwnedPartition {
    /// A partition of which no record was received.
    pub(super) fn new(topic: Arc<str>, partition: i32, queue: Arc<Queue>) -> Self {
        Self {
            topic,
            partition,
            queue,
            paused: AtomicBool::new(false),
            next: AtomicI64::new(0),
            first: AtomicI64::new(-1),
            end: AtomicI64::new(-1),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether the partition was taken away.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether the record at `offset` is new. If so, records up to it count as received.
    pub(super) fn advance(&self, offset: i64) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        let new = offset >= next;
        if new {
            if next == 0 {
                self.first.store(offset, Ordering::Relaxed);
            }
            self.next.store(offset + 1, Ordering::Relaxed);
        }
        new
    }

    /// Marks the partition as paused. Returns `false` if it was paused already.
    pub(super) fn pause(&self) -> bool {
        !self.paused.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Notes the end of the partition, as the brokers have reported it.
    pub(super) fn set_end(&self, offset: i64) {
        self.end.store(offset, Ordering::Relaxed);
    }

    /// The number of records that the group has not committed, as far as known. The statistics know the end of
    /// the partition only from the last fetch, and paused partitions are not fetched.
    pub(super) fn lag(&self, partition: &Partition) -> Option<i64> {
        let fetched = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
        let end = fetched.max(self.end.load(Ordering::Relaxed));
        let candidates =
            [partition.committed_offset, self.first.load(Ordering::Relaxed), partition.next_offset];
        let from = candidates.into_iter().find(|offset| *offset >= 0)?;
        (end >= 0).then(|| (end - from).max(0))
    }

    /// Ends the queue: the partition was taken away.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.queue.close();
    }
}
