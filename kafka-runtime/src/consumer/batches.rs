//! The worker for handlers of batches: one batch after the other.

use super::attempt::PanicSafeHandler;
use super::context::{NextStep, WorkerContext};
use super::handler::{BatchHandler, HandlerError, Outcome, Rejected};
use crate::record::{Batch, Record, Records};
use std::slice;

pub(super) async fn work<H: BatchHandler>(context: WorkerContext, handler: H) {
    let mut handler = PanicSafeHandler::new(handler);
    while let Some(records) = context.next_full_batch().await {
        let Some(last) = records.last() else { continue };
        let next = last.offset + 1;
        match process(&context, &mut handler, batch(&context, records, 1)).await {
            Processed::Done(count) => {
                context.metrics.batches.increment(1);
                context.metrics.records.increment(count as u64);
                context.mark_done(next);
            }
            Processed::Split(Batch { records, attempt, .. }) => {
                if !one_by_one(&context, &mut handler, records, attempt + 1).await {
                    return;
                }
            }
            Processed::Abandoned => return,
        }
    }
}

/// Processes each record as a batch of its own, starting at the given attempt; `false` if the worker has to finish.
async fn one_by_one<H: BatchHandler>(
    context: &WorkerContext,
    handler: &mut PanicSafeHandler<H>,
    records: Records,
    attempt: u32,
) -> bool {
    for record in records {
        let next = record.offset + 1;
        match process(context, handler, batch(context, vec![record], attempt)).await {
            Processed::Done(_) | Processed::Split(_) => {
                context.metrics.batches.increment(1);
                context.metrics.records.increment(1);
                context.mark_done(next);
            }
            Processed::Abandoned => return false,
        }
    }
    true
}

pub(super) fn batch(context: &WorkerContext, records: Vec<Record>, attempt: u32) -> Batch {
    let done = context.queue.done();
    Batch {
        topic: context.partition.topic.clone(),
        partition: context.partition.partition,
        records: records.into(),
        follows: (done >= 0).then_some(done),
        attempt,
    }
}

enum Processed {
    /// Number of records that were handled or dead-lettered.
    Done(usize),
    /// All attempts for the whole batch failed: its records are tried one by one.
    Split(Batch),
    /// The worker has to finish.
    Abandoned,
}

/// Retries until the batch is done. A batch of one record is never split.
async fn process<H: BatchHandler>(
    context: &WorkerContext,
    handler: &mut PanicSafeHandler<H>,
    mut batch: Batch,
) -> Processed {
    loop {
        let result = handler.call(batch.clone()).await;
        let error = match result.and_then(|outcome| check_outcome(context, &batch, outcome)) {
            Ok(rejected) => {
                if !rejected.is_empty() {
                    context.dead_letter(&batch.records, &rejected, batch.attempt).await;
                }
                return Processed::Done(batch.records.len());
            }
            Err(error) => error,
        };
        match context.after_failure(&batch, &error).await {
            NextStep::Retry => batch.attempt = batch.attempt.saturating_add(1),
            NextStep::Abandon => return Processed::Abandoned,
            NextStep::GiveUp if batch.records.len() > 1 => return Processed::Split(batch),
            NextStep::GiveUp => {
                let rejected = Rejected { index: 0, reason: error.reason() };
                context.dead_letter(&batch.records, slice::from_ref(&rejected), batch.attempt).await;
                return Processed::Done(1);
            }
        }
    }
}

/// The rejected records of an outcome, if they can be dead-lettered.
fn check_outcome(
    context: &WorkerContext,
    batch: &Batch,
    outcome: Outcome,
) -> Result<Vec<Rejected>, HandlerError> {
    let Outcome { rejected } = outcome;
    if rejected.iter().any(|rejected| rejected.index >= batch.records.len()) {
        return Err(HandlerError::retry("the handler rejected a record that is not in the batch"));
    }
    match rejected.first() {
        // Rejecting the batch splits it: the records before this one get done, and only this one blocks the partition.
        Some(first) if context.shared.dead_letters.is_none() => {
            Err(HandlerError::reject(first.reason.clone()))
        }
        _ => Ok(rejected),
    }
}
