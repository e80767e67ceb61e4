//! Single records, each until it is done.

use super::attempt::Handling;
use super::config::Ordering;
use super::handler::{RecordHandler, Rejected};
use super::keys;
use super::lane::{Lane, Next};
use crate::record::{Message, Record};
use std::slice;
use tokio::sync::Semaphore;

pub(super) async fn work<H: RecordHandler>(lane: Lane, handler: H) {
    match lane.shared.config.ordering {
        Ordering::Partition => in_turn(lane, handler).await,
        Ordering::Key { concurrency } => keys::work(lane, handler, concurrency).await,
    }
}

async fn in_turn<H: RecordHandler>(lane: Lane, handler: H) {
    let mut handling = Handling::new(handler);
    let (max_records, max_bytes) = (lane.shared.config.max_records, lane.shared.config.max_bytes);
    while let Some(records) = lane.next_batch(max_records, max_bytes).await {
        for record in records {
            let next = record.offset + 1;
            if lane.finish.is_cancelled() || !settle(&lane, &mut handling, record, None).await {
                return;
            }
            lane.metrics.records.increment(1);
            lane.done(next);
        }
    }
}

/// Tries until the record is done, each attempt in one of `places` if there are any; `false` if it is left to the next
/// owner.
pub(super) async fn settle<H: RecordHandler>(
    lane: &Lane,
    handling: &mut Handling<H>,
    record: Record,
    places: Option<&Semaphore>,
) -> bool {
    let mut message = Message { record, attempt: 1 };
    loop {
        let place = match places {
            None => None,
            Some(places) => tokio::select! {
                biased;
                () = lane.finish.cancelled() => return false,
                place = places.acquire() => place.ok(),
            },
        };
        let result = handling.call(message.clone()).await;
        drop(place);
        let Err(error) = result else { return true };
        match lane.after_failure(&message, &error).await {
            Next::Again => message.attempt = message.attempt.saturating_add(1),
            Next::Abandon => return false,
            Next::GiveUp => {
                let rejected = Rejected { index: 0, reason: error.reason() };
                let records = slice::from_ref(&message.record);
                lane.bury(records, slice::from_ref(&rejected), message.attempt).await;
                return true;
            }
        }
    }
}
