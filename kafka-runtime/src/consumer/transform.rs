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
        loop {
            let error = match self.attempt(&batch, next).await {
                Ok(()) => return self.done(&batch, next),
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

    async fn attempt(&mut self, batch: &Batch, next: i64) -> Result<(), HandlerError> {
        let outputs = self.handling.call(batch.clone()).await?;
        self.write(next, outputs).await
    }

    async fn write(&self, next: i64, outputs: Vec<ProducerRecord>) -> Result<(), HandlerError> {
        let Some(source) = self.source.upgrade() else { return Err(HandlerError::retry(Error::Closed)) };
        let written = source.transact(&self.from, next, outputs);
        drop(source);
        written.await.map_err(|error| match error {
            Error::Output(refusal) if !refusal.is_retryable() => HandlerError::reject(refusal),
            error => HandlerError::retry(error),
        })
    }

    /// Only the offset is left to be written when the dead letters have the record.
    async fn bury(&self, batch: &Batch, next: i64, error: &HandlerError) -> Settled {
        let rejected = Rejected { index: 0, reason: error.reason() };
        self.lane.bury(&batch.records, slice::from_ref(&rejected), batch.attempt).await;
        let mut waiting = batch.clone();
        while let Err(error) = self.write(next, Vec::new()).await {
            if let Next::Abandon = self.lane.after_failure(&waiting, &error).await {
                return Settled::Abandoned;
            }
            waiting.attempt = waiting.attempt.saturating_add(1);
        }
        self.done(batch, next)
    }

    fn done(&self, batch: &Batch, next: i64) -> Settled {
        self.lane.metrics.batches.increment(1);
        self.lane.metrics.records.increment(batch.records.len() as u64);
        self.lane.done(next);
        Settled::Done
    }
}
