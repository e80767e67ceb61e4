//! The bounded queue between the thread that reads a log and the worker of one partition.

use crate::record::Record;
use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::vec;

/// Capacity of a [`Queue`]. Either limit makes it full. One record may exceed `bytes`, so that a large record
/// can pass.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Number of records.
    pub records: usize,
    /// Bytes of keys, payloads and headers.
    pub bytes: usize,
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// Records of one partition that were read but not processed, and the offset up to which they are processed.
///
/// The source's thread adds records; the worker, a task, takes them. The worker is woken only while it waits.
/// The source is notified of progress only after it has asked for it.
pub struct Queue {
    limits: QueueLimits,
    inner: Mutex<Inner>,
    done: AtomicI64,
    notify: AtomicBool,
    hook: Option<Hook>,
}

#[derive(Default)]
struct Inner {
    /// Records as the source added them, in runs. A run that becomes a batch by itself is never copied.
    runs: VecDeque<vec::IntoIter<Record>>,
    records: usize,
    bytes: usize,
    waker: Option<Waker>,
    closed: bool,
}

impl Inner {
    fn is_full(&self, limits: QueueLimits) -> bool {
        self.records >= limits.records || self.bytes >= limits.bytes
    }

    fn push(&mut self, run: Vec<Record>) {
        if !run.is_empty() {
            self.records += run.len();
            self.bytes += run.iter().map(Record::size).sum::<usize>();
            self.runs.push_back(run.into_iter());
        }
    }

    /// Takes records from the front within both limits, but at least one if there is one.
    fn take(&mut self, max_records: usize, max_bytes: usize) -> Vec<Record> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(run) = self.runs.front_mut() {
            let mut count = 0;
            for record in run.as_slice() {
                let (records, size) = (batch.len() + count, record.size());
                if records > 0 && (records >= max_records || bytes + size > max_bytes) {
                    break;
                }
                bytes += size;
                count += 1;
            }
            let whole = count == run.len();
            // A whole run keeps its allocation.
            let records = if whole { mem::take(run).collect() } else { run.take(count).collect::<Vec<_>>() };
            match batch.is_empty() {
                true => batch = records,
                false => batch.extend(records),
            }
            if !whole {
                break;
            }
            self.runs.pop_front();
        }
        self.records -= batch.len();
        self.bytes -= bytes;
        batch
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("limits", &self.limits)
            .field("done", &self.done())
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// An empty queue. `done` is the first offset that is not processed, -1 if unknown. `hook` is called on
    /// progress, if the source has asked for it.
    pub(crate) fn new(limits: QueueLimits, done: i64, hook: Option<Hook>) -> Self {
        Self {
            limits,
            inner: Mutex::default(),
            done: AtomicI64::new(done),
            notify: AtomicBool::new(false),
            hook,
        }
    }

    /// Adds all records of `run`, even beyond the limits. Returns whether the queue is full now.
    #[cfg(any(test, feature = "kafka"))]
    pub(crate) fn push(&self, run: Vec<Record>) -> bool {
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        inner.push(run);
        let full = inner.is_full(self.limits);
        Self::wake(inner);
        full
    }

    /// Adds records from the front of `records` while there is room and drops the rest. Returns the number of
    /// added records.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn extend(&self, records: impl Iterator<Item = Record>) -> usize {
        let mut inner = self.lock();
        if inner.closed {
            return 0;
        }
        let (mut room, mut bytes) = (self.limits.records.saturating_sub(inner.records), inner.bytes);
        let fits = |record: &Record| {
            let fits = room > 0 && bytes < self.limits.bytes;
            room = room.saturating_sub(1);
            bytes += record.size();
            fits
        };
        let run: Vec<Record> = records.take_while(fits).collect();
        let added = run.len();
        inner.push(run);
        Self::wake(inner);
        added
    }

    fn wake(mut inner: MutexGuard<'_, Inner>) {
        let waker = if inner.records == 0 { None } else { inner.waker.take() };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// How many records may be added. 0 until at least half of the queue is free, so that it is refilled in
    /// large steps.
    pub(crate) fn room(&self) -> usize {
        let inner = self.lock();
        let free = self.limits.records.saturating_sub(inner.records);
        if inner.closed || free * 2 < self.limits.records || inner.bytes * 2 > self.limits.bytes {
            0
        } else {
            free
        }
    }

    /// Requests one call of the hook at the next progress. Check the queue again after this call: progress made
    /// before it is not reported.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn notify_on_progress(&self) {
        self.notify.store(true, Ordering::SeqCst);
    }

    /// Closes the queue: drops its records and ends the worker's wait.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        (inner.records, inner.bytes) = (0, 0);
        inner.runs.clear();
        if let Some(waker) = inner.waker.take() {
            drop(inner);
            waker.wake();
        }
    }

    /// Whether the partition was taken away.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until this many records or bytes are queued, or the queue is full or closed. Allows one reader.
    /// Cancel safe.
    pub(crate) async fn filled(&self, records: usize, bytes: usize) {
        std::future::poll_fn(|context| {
            let mut inner = self.lock();
            let is_filled = inner.records >= records || inner.bytes >= bytes;
            if is_filled || inner.is_full(self.limits) || inner.closed {
                return Poll::Ready(());
            }
            inner.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits for a record, then takes up to `max_records` queued records. `max_bytes` does not apply to the
    /// first record. Returns `None` when the queue is closed. Allows one reader. Cancel safe.
    pub async fn next_batch(&self, max_records: usize, max_bytes: usize) -> Option<Vec<Record>> {
        let batch = std::future::poll_fn(|context| {
            let mut inner = self.lock();
            if inner.closed {
                return Poll::Ready(None);
            }
            if inner.records == 0 {
                if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    inner.waker = Some(context.waker().clone());
                }
                return Poll::Pending;
            }
            Poll::Ready(Some(inner.take(max_records, max_bytes)))
        })
        .await;
        self.progressed();
        batch
    }

    /// The offset after the last processed record, or -1 if unknown.
    pub fn done(&self) -> i64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Marks everything before `next` as processed.
    pub(crate) fn set_done(&self, next: i64) {
        self.done.store(next, Ordering::SeqCst);
        self.progressed();
    }

    fn progressed(&self) {
        if let Some(hook) = &self.hook
            && self.notify.load(Ordering::SeqCst)
            && self.notify.swap(false, Ordering::SeqCst)
        {
            hook();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    const LIMITS: QueueLimits = QueueLimits { records: 10, bytes: 1000 };

    fn record(offset: i64, bytes: usize) -> Record {
        Record {
            topic: "t".into(),
            partition: 0,
            offset,
            key: Bytes::new(),
            payload: vec![0; bytes].into(),
            headers: vec![],
            timestamp_ms: 0,
        }
    }

    fn offsets(batch: Option<Vec<Record>>) -> Vec<i64> {
        batch.expect("the queue must be open").iter().map(|record| record.offset).collect()
    }

    #[tokio::test]
    async fn a_batch_takes_the_queued_records_within_both_limits() {
        let queue = Queue::new(LIMITS, 0, None);
        assert_eq!(queue.extend((0..5).map(|offset| record(offset, 100))), 5);
        assert_eq!(offsets(queue.next_batch(2, 1000).await), [0, 1]);
        assert_eq!(offsets(queue.next_batch(10, 250).await), [2, 3]);
        assert_eq!(offsets(queue.next_batch(10, 1).await), [4]);
    }

    #[tokio::test]
    async fn a_batch_may_span_runs() {
        let queue = Queue::new(LIMITS, 0, None);
        for run in [0..2, 2..3, 3..7, 7..8] {
            queue.push(run.map(|offset| record(offset, 10)).collect());
        }
        assert_eq!(offsets(queue.next_batch(4, 1000).await), [0, 1, 2, 3]);
        assert_eq!(offsets(queue.next_batch(10, 20).await), [4, 5]);
        assert_eq!(offsets(queue.next_batch(10, 1000).await), [6, 7]);
        assert_eq!(queue.room(), 10);
    }

    #[tokio::test]
    async fn a_full_queue_accepts_no_more_and_a_large_record_passes() {
        let queue = Queue::new(LIMITS, 0, None);
        assert_eq!(queue.extend((0..20).map(|offset| record(offset, 1))), 10);
        assert_eq!(queue.room(), 0);
        assert_eq!(offsets(queue.next_batch(100, 1000).await).len(), 10);
        assert_eq!(queue.extend([record(10, 5000), record(11, 1)].into_iter()), 1);
        assert_eq!(offsets(queue.next_batch(100, 1000).await), [10]);
        assert_eq!(queue.room(), 10);
    }

    #[tokio::test]
    async fn the_hook_is_called_once_per_request() {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let hook: Hook = Box::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        });
        let queue = Queue::new(LIMITS, 0, Some(hook));
        queue.set_done(1);
        queue.notify_on_progress();
        queue.set_done(2);
        queue.set_done(3);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_closed_queue_yields_and_accepts_no_records() {
        let queue = Queue::new(LIMITS, 0, None);
        queue.push(vec![record(0, 1)]);
        queue.close();
        assert!(queue.next_batch(1, 1).await.is_none());
        assert_eq!(queue.extend(std::iter::once(record(1, 1))), 0);
    }
}
