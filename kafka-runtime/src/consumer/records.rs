//! The worker for handlers of single records.

use super::attempt::PanicSafeHandler;
use super::config::Ordering;
use super::context::{NextStep, WorkerContext};
use super::handler::{RecordHandler, Rejected};
use super::keys;
use crate::record::{Message, Record};
use std::slice;
use tokio::sync::Semaphore;

pub(super) async fn work<H: RecordHandler>(context: WorkerContext, handler: H) {
    match context.shared.config.ordering {
        Ordering::Partition => in_partition_order(context, handler).await,
        Ordering::Key { concurrency } => keys::work(context, handler, concurrency).await,
    }
}

async fn in_partition_order<H: RecordHandler>(context: WorkerContext, handler: H) {
    let mut handler = PanicSafeHandler::new(handler);
    let (max_records, max_bytes) = (context.shared.config.max_records, context.shared.config.max_bytes);
    while let Some(records) = context.next_batch(max_records, max_bytes).await {
        for record in records {
            let next = record.offset + 1;
            if context.finish.is_cancelled() || !process(&context, &mut handler, record, None).await {
                return;
            }
            context.metrics.records.increment(1);
            context.mark_done(next);
        }
    }
}

/// Retries until the record is done; `false` if it is left to the next owner of the partition. If there are `permits`, each
/// attempt holds one.
pub(super) async fn process<H: RecordHandler>(
    context: &WorkerContext,
    handler: &mut PanicSafeHandler<H>,
    record: Record,
    permits: Option<&Semaphore>,
) -> bool {
    let mut message = Message { record, attempt: 1 };
    loop {
        let permit = match permits {
            None => None,
            Some(permits) => tokio::select! {
                biased;
                () = context.finish.cancelled() => return false,
                permit = permits.acquire() => permit.ok(),
            },
        };
        let result = handler.call(message.clone()).await;
        drop(permit);
        let Err(error) = result else { return true };
        match context.after_failure(&message, &error).await {
            NextStep::Retry => message.attempt = message.attempt.saturating_add(1),
            NextStep::Abandon => return false,
            NextStep::GiveUp => {
                let rejected = Rejected { index: 0, reason: error.reason() };
                let records = slice::from_ref(&message.record);
                context.dead_letter(records, slice::from_ref(&rejected), message.attempt).await;
                return true;
            }
        }
    }
}
