//! Batches that become records, written together with the batch's offset.

use super::attempt::Handling;
use super::batches::batch;
use super::handler::{HandlerError, Rejected, TransformHandler};
use super::lane::{Lane, Next};
use crate::error::Error;
use crate::record::{Batch, ProducerRecord};
use crate::source::{AssignedPartition, Source};
use std::slice;
use std::sync::{Arc, Weak};

pub(super) async fn work<H: TransformHandler>(lane: Lane, source: Weak<dyn Source>, handler: H) {
    let from = AssignedPartition { partition: lane.partition.clone(), queue: Arc::clone(&lane.queue) };
    let mut transform = Transform { lane, source, from, handling: Handling::new(handler) };
    while let Some(records) = transform.lane.next_full_batch().await {
        let all = batch(&transform.lane, records, 1);
        match transform.settle(all).await {
            Settled::Done => {}
            Settled::Split(Batch { records, attempt, .. }) => {
                for record in records {
                    let alone = batch(&transform.lane, vec![record], attempt.saturating_add(1));
                    if let Settled::Abandoned = transform.settle(alone).await {
                        return;
                    }
                }
            }
            Settled::Abandoned => return,
        }
    }
}

enum Settled {
    /// Its outputs were written, or it is among the dead letters.
    Done,
    /// It was given up as a whole, after its attempts.
    Split(Batch),
    Abandoned,
}

struct Transform<H> {
    lane: Lane,
    /// The consumer owns it, and it ends with that.
    source: Weak<dyn Source>,
    from: AssignedPartition,
    handling: Handling<H>,
}

impl<H: TransformHandler> Transform<H> {
    /// Tries until the batch is done. A batch of one record is never split.
    async fn settle(&mut self, mut batch: Batch) -> Settled {
        let Some(next) = batch.records.last().map(|last| last.offset + 1) else { return Settled::Done };
        let mut unwritten = 0;
        loop {
            let error = match self.handling.call(batch.clone()).await {
                Ok(outputs) => match self.write(next, outputs).await {
                    Ok(()) => return self.done(&batch, next),
                    Err(Error::Output(refusal)) if !refusal.is_retryable() => HandlerError::reject(refusal),
                    Err(error) => {
                        unwritten += 1;
                        if self.waits(next, &error, unwritten).await {
                            continue;
                        }
                        return Settled::Abandoned;
                    }
                },
                Err(error) => error,
            };
            match self.lane.after_failure(&batch, &error).await {
                Next::Again => batch.attempt = batch.attempt.saturating_add(1),
                Next::Abandon => return Settled::Abandoned,
                Next::GiveUp if batch.records.len() > 1 => return Settled::Split(batch),
                Next::GiveUp => return self.bury(&batch, next, &error).await,
            }
        }
    }

    async fn write(&self, next: i64, outputs: Vec<ProducerRecord>) -> Result<(), Error> {
        let source = self.source.upgrade().ok_or(Error::Closed)?;
        let written = source.transact(&self.from, next, outputs);
        drop(source);
        written.await
    }

    /// Waits before what the log did not take is tried again; `false` if it is left to the next owner. It uses up none of the
    /// handler's attempts: an outage makes no dead letters.
    async fn waits(&self, next: i64, error: &Error, failures: u32) -> bool {
        let Lane { partition, queue, finish, shared, metrics } = &self.lane;
        shared.committed(&[(partition.clone(), next)], Err(error));
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

    /// Only the offset is left to be written when the dead letters have the record.
    async fn bury(&self, batch: &Batch, next: i64, error: &HandlerError) -> Settled {
        let rejected = Rejected { index: 0, reason: error.reason() };
        self.lane.bury(&batch.records, slice::from_ref(&rejected), batch.attempt).await;
        let mut failures = 0;
        while let Err(error) = self.write(next, Vec::new()).await {
            failures += 1;
            if !self.waits(next, &error, failures).await {
                return Settled::Abandoned;
            }
        }
        self.done(batch, next)
    }

    fn done(&self, batch: &Batch, next: i64) -> Settled {
        self.lane.shared.committed(&[(self.lane.partition.clone(), next)], Ok(()));
        self.lane.metrics.batches.increment(1);
        self.lane.metrics.records.increment(batch.records.len() as u64);
        self.lane.done(next);
        Settled::Done
    }
}
