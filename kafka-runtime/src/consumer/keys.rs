//! Single records, in order per key: those of different keys at the same time.
//!
//! All futures run in the task of the partition: when it ends, nothing of the partition goes on. A record that waits to be
//! tried again holds back its key alone, and takes none of the places that `concurrency` gives.

use super::attempt::Handling;
use super::handler::RecordHandler;
use super::lane::Lane;
use super::records::settle;
use crate::record::Record;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroUsize;
use tokio::sync::Semaphore;

/// How far records may be done ahead of the oldest one that is not. All of them are delivered again after a crash.
const MAX_AHEAD: i64 = 100_000;

pub(super) async fn work<H: RecordHandler>(lane: Lane, handler: H, concurrency: NonZeroUsize) {
    let places = Semaphore::new(concurrency.get().min(Semaphore::MAX_PERMITS));
    let mut window = Window::default();
    // Keys of which a record is running, with the records that wait for it.
    let mut keys = HashMap::<Bytes, VecDeque<Record>>::new();
    let mut running = FuturesUnordered::new();
    let mut may_take = true;
    let start = |record: Record| {
        let (key, offset) = (record.key.clone(), record.offset);
        let (lane, places, mut handling) = (&lane, &places, Handling::new(handler.clone()));
        async move { (key, offset, settle(lane, &mut handling, record, Some(places)).await) }
    };
    loop {
        let (room_records, room_bytes) = window.room(&lane);
        tokio::select! {
            biased;
            Some((key, offset, is_done)) = running.next() => {
                if is_done {
                    lane.metrics.records.increment(1);
                    if let Some(next) = window.done(offset) {
                        lane.done(next);
                    }
                }
                if lane.finish.is_cancelled() {
                    continue;
                }
                match keys.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(next) => running.push(start(next)),
                    None => drop(keys.remove(&key)),
                }
            }
            records = lane.next_batch(room_records, room_bytes), if may_take && room_records > 0 => {
                let Some(records) = records else {
                    may_take = false;
                    continue;
                };
                for record in records {
                    window.take(&record);
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

/// Records that were taken and are not done, and how far all are.
#[derive(Debug, Default)]
struct Window {
    /// Sizes by offset.
    undone: BTreeMap<i64, usize>,
    bytes: usize,
    /// After the last record that was taken.
    next: i64,
    /// Before it all is done; `None` before the first record.
    watermark: Option<i64>,
}

impl Window {
    fn take(&mut self, record: &Record) {
        let size = record.size();
        self.bytes += size;
        self.undone.insert(record.offset, size);
        self.next = record.offset + 1;
        self.watermark.get_or_insert(record.offset);
    }

    /// The offset before which all is done now, if that has moved.
    fn done(&mut self, offset: i64) -> Option<i64> {
        self.bytes -= self.undone.remove(&offset).unwrap_or(0);
        let watermark = self.undone.keys().next().copied().unwrap_or(self.next);
        let moved = self.watermark != Some(watermark);
        self.watermark = Some(watermark);
        moved.then_some(watermark)
    }

    /// How many more records and bytes may be taken.
    fn room(&self, lane: &Lane) -> (usize, usize) {
        let config = &lane.shared.config;
        let ahead = self.next - self.watermark.unwrap_or(self.next);
        let (max_records, max_bytes) = (config.max_records.max(1), config.max_bytes.max(1));
        if ahead >= MAX_AHEAD || self.bytes >= max_bytes {
            return (0, 0);
        }
        (max_records.saturating_sub(self.undone.len()), max_bytes - self.bytes)
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
            window.take(&record(offset));
        }
        assert_eq!(window.done(11), None, "10 is not done");
        assert_eq!(window.done(10), Some(15), "there is nothing between 11 and 15");
        assert_eq!(window.done(15), Some(16));
    }
}
