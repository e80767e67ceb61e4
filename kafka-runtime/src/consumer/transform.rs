//! The worker for transformations: it writes the output records and the batch's offset in one transaction.

use super::attempt::PanicSafeHandler;
use super::batches::batch;
use super::context::{NextStep, WorkerContext};
use super::handler::{HandlerError, Rejected, TransformHandler};
use crate::error::Error;
use crate::record::{Batch, ProducerRecord};
use crate::source::{AssignedPartition, Source};
use std::slice;
use std::sync::{Arc, Weak};

pub(super) async fn work<H: TransformHandler>(context: WorkerContext, source: Weak<dyn Source>, handler: H) {
    let from = AssignedPartition { partition: context.partition.clone(), queue: Arc::clone(&context.queue) };
    let mut transform = Transform { context, source, from, handler: PanicSafeHandler::new(handler) };
    while let Some(records) = transform.context.next_full_batch().await {
        let all = batch(&transform.context, records, 1);
        match transform.process(all).await {
            Processed::Done => {}
            Processed::Split(Batch { records, attempt, .. }) => {
                for record in records {
                    let alone = batch(&transform.context, vec![record], attempt.saturating_add(1));
                    if let Processed::Abandoned = transform.process(alone).await {
                        return;
                    }
                }
            }
            Processed::Abandoned => return,
        }
    }
}

enum Processed {
    /// The outputs were written, or the record was dead-lettered.
    Done,
    /// All attempts for the whole batch failed: its records are tried one by one.
    Split(Batch),
    /// The worker has to finish.
    Abandoned,
}

struct Transform<H> {
    context: WorkerContext,
    /// Weak, because the consumer owns the source: dropping the source leaves the group.
    source: Weak<dyn Source>,
    from: AssignedPartition,
    handler: PanicSafeHandler<H>,
}

impl<H: TransformHandler> Transform<H> {
    /// Retries until the batch is done. A batch of one record is never split.
    async fn process(&mut self, mut batch: Batch) -> Processed {
        let Some(next) = batch.records.last().map(|last| last.offset + 1) else { return Processed::Done };
        let mut write_failures = 0;
        loop {
            let error = match self.handler.call(batch.clone()).await {
                Ok(outputs) => match self.write(next, outputs).await {
                    Ok(()) => return self.complete(&batch, next),
                    Err(Error::Output(error)) if !error.is_retryable() => HandlerError::reject(error),
                    Err(error) => {
                        write_failures += 1;
                        if self.back_off(next, &error, write_failures).await {
                            continue;
                        }
                        return Processed::Abandoned;
                    }
                },
                Err(error) => error,
            };
            match self.context.after_failure(&batch, &error).await {
                NextStep::Retry => batch.attempt = batch.attempt.saturating_add(1),
                NextStep::Abandon => return Processed::Abandoned,
                NextStep::GiveUp if batch.records.len() > 1 => return Processed::Split(batch),
                NextStep::GiveUp => return self.dead_letter(&batch, next, &error).await,
            }
        }
    }

    async fn write(&self, next: i64, outputs: Vec<ProducerRecord>) -> Result<(), Error> {
        let source = self.source.upgrade().ok_or(Error::Closed)?;
        let written = source.transact(&self.from, next, outputs);
        drop(source);
        written.await
    }

    /// Waits before a failed write is retried; `false` if the batch is left to the next owner of the partition. A failed write
    /// does not count as an attempt of the handler, so an outage of the log creates no dead letters.
    async fn back_off(&self, next: i64, error: &Error, failures: u32) -> bool {
        let WorkerContext { partition, queue, finish, shared, metrics } = &self.context;
        shared.report_commit(&[(partition.clone(), next)], Err(error));
        if queue.is_closed() {
            return false;
        }
        let delay = shared.config.retry.backoff.delay(failures);
        tracing::warn!(
            consumer = &*shared.name, %partition, next, failures, delay_ms = delay.as_millis() as u64,
            error = error as &dyn std::error::Error,
            "outputs not written, trying again"
        );
        metrics.pauses.increment(1);
        tokio::select! {
            biased;
            () = finish.cancelled() => false,
            () = tokio::time::sleep(delay) => {
                metrics.retries.increment(1);
                true
            }
        }
    }

    /// Dead-letters a single record, then writes its offset in a transaction without outputs.
    async fn dead_letter(&self, batch: &Batch, next: i64, error: &HandlerError) -> Processed {
        let rejected = Rejected { index: 0, reason: error.reason() };
        self.context.dead_letter(&batch.records, slice::from_ref(&rejected), batch.attempt).await;
        let mut failures = 0;
        while let Err(error) = self.write(next, Vec::new()).await {
            failures += 1;
            if !self.back_off(next, &error, failures).await {
                return Processed::Abandoned;
            }
        }
        self.complete(batch, next)
    }

    fn complete(&self, batch: &Batch, next: i64) -> Processed {
        self.context.shared.report_commit(&[(self.context.partition.clone(), next)], Ok(()));
        self.context.metrics.batches.increment(1);
        self.context.metrics.records.increment(batch.records.len() as u64);
        self.context.mark_done(next);
        Processed::Done
    }
}
