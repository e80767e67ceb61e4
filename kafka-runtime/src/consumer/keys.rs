//! The worker for handlers of single records with order per key: records of different keys run concurrently.
//!
//! All handler calls run in the task of the partition, so they end with it. A record that waits for a retry blocks its own key
//! only, and holds no permit of the `concurrency` limit.

use super::attempt::PanicSafeHandler;
use super::context::WorkerContext;
use super::handler::RecordHandler;
use super::records::process;
use crate::record::Record;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroUsize;
use tokio::sync::Semaphore;

/// Limit for the distance from the oldest unfinished record to the newest one taken. After a crash, all records in between are
/// delivered again.
const MAX_AHEAD: i64 = 100_000;

pub(super) async fn work<H: RecordHandler>(context: WorkerContext, handler: H, concurrency: NonZeroUsize) {
    let permits = Semaphore::new(concurrency.get().min(Semaphore::MAX_PERMITS));
    let mut window = Window::default();
    // Keys with a record in flight, and the records that wait for it.
    let mut keys = HashMap::<Bytes, VecDeque<Record>>::new();
    let mut running = FuturesUnordered::new();
    let mut accepts_more = true;
    let start = |record: Record| {
        let (key, offset) = (record.key.clone(), record.offset);
        let (context, permits, mut handler) = (&context, &permits, PanicSafeHandler::new(handler.clone()));
        async move { (key, offset, process(context, &mut handler, record, Some(permits)).await) }
    };
    loop {
        let (free_records, free_bytes) = window.capacity(&context);
        tokio::select! {
            biased;
            Some((key, offset, is_done)) = running.next() => {
                if is_done {
                    context.metrics.records.increment(1);
                    if let Some(next) = window.mark_done(offset) {
                        context.mark_done(next);
                    }
                }
                if context.finish.is_cancelled() {
                    continue;
                }
                match keys.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(next) => running.push(start(next)),
                    None => drop(keys.remove(&key)),
                }
            }
            records = context.next_batch(free_records, free_bytes), if accepts_more && free_records > 0 => {
                let Some(records) = records else {
                    accepts_more = false;
                    continue;
                };
                for record in records {
                    window.add(&record);
                    match keys.get_mut(&record.key) {
                        Some(waiting) => waiting.push_back(record),
                        None => {
                            keys.insert(record.key.clone(), VecDeque::new());
                            running.push(start(record));
                        }
                    }
                }
            }
            else => return,
        }
    }
}

/// The unfinished records that were taken from the queue, and the watermark: all records before it are done.
#[derive(Debug, Default)]
struct Window {
    /// Sizes by offset.
    unfinished: BTreeMap<i64, usize>,
    bytes: usize,
    /// The offset after the last record taken.
    next: i64,
    /// All records before this offset are done; `None` before the first record.
    watermark: Option<i64>,
}

impl Window {
    fn add(&mut self, record: &Record) {
        let size = record.size();
        self.bytes += size;
        self.unfinished.insert(record.offset, size);
        self.next = record.offset + 1;
        self.watermark.get_or_insert(record.offset);
    }

    /// Returns the new watermark if it has moved.
    fn mark_done(&mut self, offset: i64) -> Option<i64> {
        self.bytes -= self.unfinished.remove(&offset).unwrap_or(0);
        let watermark = self.unfinished.keys().next().copied().unwrap_or(self.next);
        let moved = self.watermark != Some(watermark);
        self.watermark = Some(watermark);
        moved.then_some(watermark)
    }

    /// Number of further records and bytes that may be taken.
    fn capacity(&self, context: &WorkerContext) -> (usize, usize) {
        let config = &context.shared.config;
        let ahead = self.next - self.watermark.unwrap_or(self.next);
        let (max_records, max_bytes) = (config.max_records.max(1), config.max_bytes.max(1));
        if ahead >= MAX_AHEAD || self.bytes >= max_bytes {
            return (0, 0);
        }
        (max_records.saturating_sub(self.unfinished.len()), max_bytes - self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64) -> Record {
        let (key, payload) = (Bytes::new(), Bytes::new());
        Record { topic: "t".into(), partition: 0, offset, key, payload, headers: vec![], timestamp_ms: 0 }
    }

    #[test]
    fn the_watermark_is_the_oldest_record_that_is_not_done() {
        let mut window = Window::default();
        for offset in [10, 11, 15] {
            window.add(&record(offset));
        }
        assert_eq!(window.mark_done(11), None, "10 is unfinished");
        assert_eq!(window.mark_done(10), Some(15), "there is nothing between 11 and 15");
        assert_eq!(window.mark_done(15), Some(16));
    }
}
