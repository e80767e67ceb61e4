//! Single records in the order of their partition, each until it is done.

use super::attempt::Handling;
use super::handler::{RecordHandler, Rejected};
use super::lane::{Lane, Next};
use crate::record::{Message, Record};
use std::slice;

pub(super) async fn work<H: RecordHandler>(lane: Lane, handler: H) {
    let mut handling = Handling::new(handler);
    while let Some(records) = lane.next_batch().await {
        lane.metrics.batches.increment(1);
        for record in records {
            let next = record.offset + 1;
            if lane.finish.is_cancelled() || !settle(&lane, &mut handling, record).await {
                return;
            }
            lane.metrics.records.increment(1);
            lane.done(next);
        }
    }
}

/// Tries until the record is done; `false` if it is left to the next owner.
async fn settle<H: RecordHandler>(lane: &Lane, handling: &mut Handling<H>, record: Record) -> bool {
    let mut message = Message { record, attempt: 1 };
    loop {
        let Err(error) = handling.call(message.clone()).await else { return true };
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
