//! Batches: one for each partition is with the client, the next one waits here until the one before is answered.
//!
//! An idempotent client of librdkafka makes no request for a partition that has five records unanswered, and does not sleep
//! while there are more that have lingered: it asks its sockets again and again. So it is not given more, unless there is much
//! to do anyway.

use super::partitions::partition;
use crate::producer::ProduceError;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// So many are not held back: where so much comes a client is never idle, and what it has waiting makes its next request larger.
const CROWD: usize = 64;

/// What happens to a record that is given to the client.
pub(super) enum Taken<R> {
    /// The client has it, and [`Lanes::answered`] is called when it is answered.
    Yes,
    /// It can be taken later, and so can all behind it: by [`Lanes::retry`] at the latest.
    Later(R),
    /// It will never be taken.
    Never(R, ProduceError),
}

/// A client, or what stands for one.
pub(super) trait Sink<R> {
    fn take(&self, record: R, lane: &Arc<Lane<R>>) -> Taken<R>;
}

/// Records that their client will never take. They are answered when no lane is locked.
pub(super) type Refused<R> = Vec<(R, ProduceError)>;

/// The lanes of each topic, one for each partition as far as is known.
type Topics<R> = HashMap<Arc<str>, Vec<Arc<Lane<R>>>>;

/// The records of one client that it was not given yet.
pub(super) struct Lanes<R> {
    /// A record waits so long for others to share its batch.
    linger: Duration,
    topics: RwLock<Topics<R>>,
    /// When the linger of lanes is over, soonest first.
    lingering: Mutex<VecDeque<(Instant, Arc<Lane<R>>)>>,
}

/// The records of one partition.
pub(super) struct Lane<R>(Mutex<State<R>>);

struct State<R> {
    waiting: VecDeque<R>,
    /// The first of those that wait has waited for long enough.
    lingered: bool,
    unanswered: usize,
}

impl<R> Lane<R> {
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
        self.waiting.len() >= CROWD || (self.lingered && self.unanswered == 0)
    }

    /// Gives the client all that waits, as far as it can take it now.
    fn hand_over(&mut self, lane: &Arc<Lane<R>>, sink: &impl Sink<R>, refused: &mut Refused<R>) {
        while let Some(record) = self.waiting.pop_front() {
            match sink.take(record, lane) {
                Taken::Yes => self.unanswered += 1,
                Taken::Never(record, error) => refused.push((record, error)),
                Taken::Later(record) => return self.waiting.push_front(record),
            }
        }
        self.lingered = false;
    }
}

impl<R> Lanes<R> {
    pub(super) fn new(linger: Duration) -> Self {
        Self { linger, topics: RwLock::default(), lingering: Mutex::default() }
    }

    /// Puts a record behind the others of its partition, one of `count`. Tells whether [`linger`](Self::linger) is to be called
    /// because of it.
    pub(super) fn push(
        &self,
        (topic, key, count): (&Arc<str>, &[u8], usize),
        record: R,
        sink: &impl Sink<R>,
    ) -> (bool, Refused<R>) {
        let mut refused = Vec::new();
        let is_known = |topics: &Topics<R>| topics.get(topic).is_some_and(|lanes| lanes.len() == count);
        let mut topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        if !is_known(&topics) {
            drop(topics);
            self.part(topic, count, sink, &mut refused);
            topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        }
        let Some(lanes) = topics.get(topic) else {
            refused.push((record, ProduceError::Closed));
            return (false, refused);
        };
        let lane = &lanes[partition(key, lanes.len())];
        let mut state = lane.lock();
        let begins = state.waiting.is_empty();
        state.waiting.push_back(record);
        state.lingered |= self.linger.is_zero();
        if state.is_due() {
            state.hand_over(lane, sink, &mut refused);
        }
        let lingers = begins && !state.lingered && !state.waiting.is_empty();
        (lingers && self.begin_to_linger(lane), refused)
    }

    /// Lanes for another number of partitions. A key may change its lane by that, and what waits goes before what comes.
    fn part(&self, topic: &Arc<str>, count: usize, sink: &impl Sink<R>, refused: &mut Refused<R>) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let lanes = topics.entry(Arc::clone(topic)).or_default();
        for lane in lanes.iter() {
            lane.lock().hand_over(lane, sink, refused);
        }
        if lanes.iter().all(|lane| lane.lock().waiting.is_empty()) {
            *lanes = (0..count.max(1)).map(|_| Lane::new()).collect();
        }
    }

    /// Whether no lane did before.
    fn begin_to_linger(&self, lane: &Arc<Lane<R>>) -> bool {
        let mut lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
        lingering.push_back((Instant::now() + self.linger, Arc::clone(lane)));
        lingering.len() == 1
    }

    /// Hands over what has lingered by `now`, and tells when it is to be called again.
    pub(super) fn linger(&self, now: Instant, sink: &impl Sink<R>) -> (Option<Instant>, Refused<R>) {
        let mut refused = Vec::new();
        loop {
            let lane = {
                let mut lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
                match lingering.front() {
                    Some((until, _)) if *until > now => return (Some(*until), refused),
                    _ => lingering.pop_front(),
                }
            };
            let Some((_, lane)) = lane else { return (None, refused) };
            let mut state = lane.lock();
            state.lingered = !state.waiting.is_empty();
            if state.is_due() {
                state.hand_over(&lane, sink, &mut refused);
            }
        }
    }

    /// The client has answered a record of `lane`: the last one of its batch is followed by the next. Without a client nothing is.
    pub(super) fn answered(lane: &Arc<Lane<R>>, sink: Option<&impl Sink<R>>) -> Refused<R> {
        let mut refused = Vec::new();
        let mut state = lane.lock();
        state.unanswered = state.unanswered.saturating_sub(1);
        if let Some(sink) = sink
            && state.is_due()
        {
            state.hand_over(lane, sink, &mut refused);
        }
        refused
    }

    /// Hands over again what the client could not take.
    pub(super) fn retry(&self, sink: &impl Sink<R>) -> Refused<R> {
        let mut refused = Vec::new();
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        for lane in topics.values().flatten() {
            let mut state = lane.lock();
            if state.is_due() {
                state.hand_over(lane, sink, &mut refused);
            }
        }
        refused
    }

    /// Everything that waits, for good.
    pub(super) fn give_up(&self) -> Vec<R> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let lanes = topics.drain().flat_map(|(_, lanes)| lanes);
        lanes.flat_map(|lane| std::mem::take(&mut lane.lock().waiting)).collect()
    }
}

#[cfg(test)]
mod tests;
