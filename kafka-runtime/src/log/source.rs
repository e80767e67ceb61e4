//! The embedded log as a [`Source`].

use super::Log;
use super::inbox::{Attached, Command, Membership, Transfer};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::health::Health;
use crate::record::ProducerRecord;
use crate::source::{self, AssignedPartition, Event, InitialOffset, Offsets, Source, StartOffsets};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Reads topics of a [`Log`] as the only consumer of a group. All partitions are assigned at the start and stay
/// assigned.
#[derive(Debug)]
pub struct LogSource {
    log: Log,
    group: Arc<str>,
    topics: Vec<usize>,
    initial: InitialOffset,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    membership: Option<Membership>,
    assigned: Option<Vec<AssignedPartition>>,
    gone: CancellationToken,
    /// Why the start offsets are not chosen yet.
    start_error: Option<String>,
}

impl LogSource {
    pub(super) fn new(log: Log, group: Arc<str>, topics: Vec<usize>) -> Self {
        Self { log, group, topics, initial: InitialOffset::Earliest, state: Mutex::default() }
    }

    /// Sets the start offset for partitions in which the group has committed no offset.
    #[must_use]
    pub fn initial_offset(mut self, initial: InitialOffset) -> Self {
        self.initial = initial;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The offsets that a hook chooses. Retries until it answers, because without them the group would start at the wrong offsets.
    async fn choose(&self, hook: &StartOffsets) -> Result<Offsets, Error> {
        let (backoff, mut attempt) = (Backoff::default(), 1);
        loop {
            let (reply, bounds) = oneshot::channel();
            let (group, topics) = (Arc::clone(&self.group), self.topics.clone());
            self.log.0.shared.inbox.command(Command::Bounds { group, topics, reply });
            let bounds = bounds.await.map_err(|_| Error::Closed)?;
            match source::choose(hook, bounds).await {
                Ok(chosen) => {
                    let chosen = chosen.into_iter();
                    return Ok(chosen.filter_map(|(partition, offset)| Some((partition, offset?))).collect());
                }
                Err(error) => {
                    self.state().start_error = Some(error.describe());
                    let (group, error) = (&*self.group, &error as &dyn std::error::Error);
                    tracing::warn!(group, error, "cannot choose where to start, trying again");
                }
            }
            tokio::time::sleep(backoff.delay(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    /// Sends a transfer to the log thread. The receiver gets the result.
    fn transfer(
        &self,
        from: &AssignedPartition,
        next: i64,
        outputs: Vec<ProducerRecord>,
    ) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
        let outputs = outputs.into_iter().map(|output| self.log.prepare(output, Box::new(drop)));
        let outputs = outputs.collect::<Result<Vec<_>, _>>().map_err(Error::Output)?;
        let (reply, written) = oneshot::channel();
        let (group, from, since) = (Arc::clone(&self.group), from.clone(), Instant::now());
        let shared = &self.log.0.shared;
        let count = outputs.len();
        shared.in_flight.begin(count);
        let transfer = Transfer { group, from, next, outputs, since, reply };
        if let Err(refusal) = shared.inbox.transact(transfer) {
            shared.in_flight.end(count);
            return Err(Error::Output(refusal));
        }
        Ok(written)
    }
}

#[async_trait]
impl Source for LogSource {
    async fn start(&self, start_offsets: Option<StartOffsets>) -> Result<(), Error> {
        let offsets = match start_offsets {
            Some(hook) => self.choose(&hook).await?,
            None => Offsets::new(),
        };
        let (reply, attached) = oneshot::channel();
        let (group, topics) = (Arc::clone(&self.group), self.topics.clone());
        let attach = Command::Attach { group, topics, initial: self.initial, offsets, reply };
        self.log.0.shared.inbox.command(attach);
        let Attached { membership, assigned, gone } = attached.await.map_err(|_| Error::Closed)??;
        *self.state() =
            State { membership: Some(membership), assigned: Some(assigned), gone, start_error: None };
        Ok(())
    }

    async fn next(&self) -> Result<Event, Error> {
        let gone = {
            let mut state = self.state();
            if let Some(assigned) = state.assigned.take() {
                return Ok(Event::Assigned(assigned));
            }
            state.gone.clone()
        };
        gone.cancelled().await;
        Err(Error::Closed)
    }

    async fn commit(&self, offsets: Offsets) -> Result<(), Error> {
        let (reply, committed) = oneshot::channel();
        self.log.0.shared.inbox.command(Command::Commit { group: Arc::clone(&self.group), offsets, reply });
        committed.await.map_err(|_| Error::Closed)?
    }

    fn transact(
        &self,
        from: &AssignedPartition,
        next: i64,
        outputs: Vec<ProducerRecord>,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let written = self.transfer(from, next, outputs);
        Box::pin(async move { written?.await.map_err(|_| Error::Closed)? })
    }

    async fn close(&self) {
        self.state().membership = None;
    }

    fn health(&self) -> Health {
        match self.state().start_error.clone() {
            Some(reason) => Health::Failing { reason },
            None => crate::Producer::health(&self.log),
        }
    }
}
