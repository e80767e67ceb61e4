//! Per-partition queues. The client has one batch of each partition. The next batch waits here until the
//! client has answered the previous one.
//!
//! An idempotent client of librdkafka sends no request for a partition that has five records unanswered. If it
//! holds more records that are due, it does not sleep but polls its sockets in a busy loop. So it gets no
//! further batch, unless the load is high and it would not sleep anyway.

use super::partitions::partition;
use crate::producer::ProduceError;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Once this many records are queued, hand them over without waiting for the previous batch. At this rate the
/// client is never idle, so holding records back saves no CPU, and a longer queue makes the next request
/// larger.
const HAND_OVER_AT: usize = 64;

/// The result of giving a record to the client.
pub(super) enum SendOutcome<R> {
    /// The client has the record. [`PartitionQueues::answered`] must be called when it is answered.
    Sent,
    /// The client cannot take the record now. It is retried with the records behind it, by [`PartitionQueues::retry`] at
    /// the latest.
    Retry(R),
    /// The client will never take the record.
    Rejected(R, ProduceError),
}

/// A Kafka client, or a replacement in tests.
pub(super) trait Sink<R> {
    fn send(&self, record: R, queue: &Arc<PartitionQueue<R>>) -> SendOutcome<R>;
}

/// Records that the client rejected. They are answered after all locks were released.
pub(super) type Rejected<R> = Vec<(R, ProduceError)>;

/// The queues of each topic, one per known partition.
type Topics<R> = HashMap<Arc<str>, Vec<Arc<PartitionQueue<R>>>>;

/// The queues of one client.
pub(super) struct PartitionQueues<R> {
    /// How long a record waits for others to share its batch.
    linger: Duration,
    topics: RwLock<Topics<R>>,
    /// The queues that linger and the time at which they are due, soonest first.
    lingering: Mutex<VecDeque<(Instant, Arc<PartitionQueue<R>>)>>,
}

/// The queue of one partition.
pub(super) struct PartitionQueue<R>(Mutex<State<R>>);

struct State<R> {
    waiting: VecDeque<R>,
    /// The linger time of the first queued record is over.
    lingered: bool,
    unanswered: usize,
}

impl<R> PartitionQueue<R> {
    fn new() -> Arc<Self> {
        let state = State { waiting: VecDeque::new(), lingered: false, unanswered: 0 };
        Arc::new(Self(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> State<R> {
    fn is_due(&self) -> bool {
        self.waiting.len() >= HAND_OVER_AT || (self.lingered && self.unanswered == 0)
    }

    /// Gives the queued records to the client until it cannot take more.
    fn hand_over(&mut self, queue: &Arc<PartitionQueue<R>>, sink: &impl Sink<R>, rejected: &mut Rejected<R>) {
        while let Some(record) = self.waiting.pop_front() {
            match sink.send(record, queue) {
                SendOutcome::Sent => self.unanswered += 1,
                SendOutcome::Rejected(record, error) => rejected.push((record, error)),
                SendOutcome::Retry(record) => return self.waiting.push_front(record),
            }
        }
        self.lingered = false;
    }
}

impl<R> PartitionQueues<R> {
    pub(super) fn new(linger: Duration) -> Self {
        Self { linger, topics: RwLock::default(), lingering: Mutex::default() }
    }

    /// Appends a record to the queue of its partition, one of `count`. Returns whether the caller must arrange
    /// a call of [`linger`](Self::linger).
    pub(super) fn push(
        &self,
        (topic, key, count): (&Arc<str>, &[u8], usize),
        record: R,
        sink: &impl Sink<R>,
    ) -> (bool, Rejected<R>) {
        let mut rejected = Vec::new();
        let is_known = |topics: &Topics<R>| topics.get(topic).is_some_and(|queues| queues.len() == count);
        let mut topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        if !is_known(&topics) {
            drop(topics);
            self.repartition(topic, count, sink, &mut rejected);
            topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        }
        let Some(queues) = topics.get(topic) else {
            rejected.push((record, ProduceError::Closed));
            return (false, rejected);
        };
        let queue = &queues[partition(key, queues.len())];
        let mut state = queue.lock();
        let was_empty = state.waiting.is_empty();
        state.waiting.push_back(record);
        state.lingered |= self.linger.is_zero();
        if state.is_due() {
            state.hand_over(queue, sink, &mut rejected);
        }
        let lingers = was_empty && !state.lingered && !state.waiting.is_empty();
        (lingers && self.start_linger(queue), rejected)
    }

    /// Recreates the queues for another number of partitions. A key may change its queue, so queued records
    /// are handed over first.
    fn repartition(&self, topic: &Arc<str>, count: usize, sink: &impl Sink<R>, rejected: &mut Rejected<R>) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let queues = topics.entry(Arc::clone(topic)).or_default();
        for queue in queues.iter() {
            queue.lock().hand_over(queue, sink, rejected);
        }
        if queues.iter().all(|queue| queue.lock().waiting.is_empty()) {
            *queues = (0..count.max(1)).map(|_| PartitionQueue::new()).collect();
        }
    }

    /// Returns whether no other queue lingers.
    fn start_linger(&self, queue: &Arc<PartitionQueue<R>>) -> bool {
        let mut lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
        lingering.push_back((Instant::now() + self.linger, Arc::clone(queue)));
        lingering.len() == 1
    }

    /// Hands over the queues whose linger time is over at `now`. Returns the time of the next call.
    pub(super) fn linger(&self, now: Instant, sink: &impl Sink<R>) -> (Option<Instant>, Rejected<R>) {
        let mut rejected = Vec::new();
        loop {
            let queue = {
                let mut lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
                match lingering.front() {
                    Some((until, _)) if *until > now => return (Some(*until), rejected),
                    _ => lingering.pop_front(),
                }
            };
            let Some((_, queue)) = queue else { return (None, rejected) };
            let mut state = queue.lock();
            state.lingered = !state.waiting.is_empty();
            if state.is_due() {
                state.hand_over(&queue, sink, &mut rejected);
            }
        }
    }

    /// The client has answered a record of `queue`. After the last record of a batch, hands over the next batch
    /// if there is a client.
    pub(super) fn answered(queue: &Arc<PartitionQueue<R>>, sink: Option<&impl Sink<R>>) -> Rejected<R> {
        let mut rejected = Vec::new();
        let mut state = queue.lock();
        state.unanswered = state.unanswered.saturating_sub(1);
        if let Some(sink) = sink
            && state.is_due()
        {
            state.hand_over(queue, sink, &mut rejected);
        }
        rejected
    }

    /// Hands over records that the client could not take before.
    pub(super) fn retry(&self, sink: &impl Sink<R>) -> Rejected<R> {
        let mut rejected = Vec::new();
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        for queue in topics.values().flatten() {
            let mut state = queue.lock();
            if state.is_due() {
                state.hand_over(queue, sink, &mut rejected);
            }
        }
        rejected
    }

    /// Whether no record is queued or unanswered.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().flatten().all(|queue| {
            let state = queue.lock();
            state.waiting.is_empty() && state.unanswered == 0
        })
    }

    /// Removes all queues and returns their records.
    pub(super) fn drain(&self) -> Vec<R> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let queues = topics.drain().flat_map(|(_, queues)| queues);
        queues.flat_map(|queue| std::mem::take(&mut queue.lock().waiting)).collect()
    }
}

#[cfg(test)]
mod tests;
