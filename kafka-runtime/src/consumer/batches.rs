//! Batches, one after the other, each until it is done.

use super::attempt::Handling;
use super::handler::{BatchHandler, HandlerError, Outcome, Rejected};
use super::lane::{Lane, Next};
use crate::record::{Batch, Record, Records};
use std::slice;

pub(super) async fn work<H: BatchHandler>(lane: Lane, handler: H) {
    let mut handling = Handling::new(handler);
    while let Some(records) = lane.next_full_batch().await {
        let Some(last) = records.last() else { continue };
        let next = last.offset + 1;
        match settle(&lane, &mut handling, batch(&lane, records, 1)).await {
            Settled::Done(count) => {
                lane.metrics.batches.increment(1);
                lane.metrics.records.increment(count as u64);
                lane.done(next);
            }
            Settled::Split(Batch { records, attempt, .. }) => {
                if !one_by_one(&lane, &mut handling, records, attempt + 1).await {
                    return;
                }
            }
            Settled::Abandoned => return,
        }
    }
}

/// Hands each record over alone, beginning with the given attempt; `false` if the worker is to end.
async fn one_by_one<H: BatchHandler>(
    lane: &Lane,
    handling: &mut Handling<H>,
    records: Records,
    attempt: u32,
) -> bool {
    for record in records {
        let next = record.offset + 1;
        match settle(lane, handling, batch(lane, vec![record], attempt)).await {
            Settled::Done(_) | Settled::Split(_) => {
                lane.metrics.batches.increment(1);
                lane.metrics.records.increment(1);
                lane.done(next);
            }
            Settled::Abandoned => return false,
        }
    }
    true
}

pub(super) fn batch(lane: &Lane, records: Vec<Record>, attempt: u32) -> Batch {
    Batch {
        topic: lane.partition.topic.clone(),
        partition: lane.partition.partition,
        records: records.into(),
        attempt,
    }
}

enum Settled {
    /// So many records were handled, or buried.
    Done(usize),
    /// It was given up as a whole, after its attempts.
    Split(Batch),
    Abandoned,
}

/// Tries until the batch is done. A batch of one record is never split.
async fn settle<H: BatchHandler>(lane: &Lane, handling: &mut Handling<H>, mut batch: Batch) -> Settled {
    loop {
        let result = handling.call(batch.clone()).await;
        let error = match result.and_then(|outcome| valid(lane, &batch, outcome)) {
            Ok(rejected) => {
                if !rejected.is_empty() {
                    lane.bury(&batch.records, &rejected, batch.attempt).await;
                }
                return Settled::Done(batch.records.len());
            }
            Err(error) => error,
        };
        match lane.after_failure(&batch, &error).await {
            Next::Again => batch.attempt = batch.attempt.saturating_add(1),
            Next::Abandon => return Settled::Abandoned,
            Next::GiveUp if batch.records.len() > 1 => return Settled::Split(batch),
            Next::GiveUp => {
                let rejected = Rejected { index: 0, reason: error.reason() };
                lane.bury(&batch.records, slice::from_ref(&rejected), batch.attempt).await;
                return Settled::Done(1);
            }
        }
    }
}

/// The rejected records of an outcome, if they can be buried.
fn valid(lane: &Lane, batch: &Batch, outcome: Outcome) -> Result<Vec<Rejected>, HandlerError> {
    let Outcome { rejected } = outcome;
    if rejected.iter().any(|rejected| rejected.index >= batch.records.len()) {
        return Err(HandlerError::retry("rejected a record that is not in the batch"));
    }
    match rejected.first() {
        // Tried record by record, those before it are done and it alone holds up its partition.
        Some(first) if lane.shared.dead_letters.is_none() => Err(HandlerError::reject(first.reason.clone())),
        _ => Ok(rejected),
    }
}
