//! Which partitions this member owns, and what happens when that changes.
//!
//! librdkafka calls [`pre_rebalance`](ConsumerContext::pre_rebalance) on the thread that polls, and the group waits until it
//! returns. A revocation there is the last moment at which this member may commit: the consumer is told, finishes what is in
//! flight, commits from its own task (a commit needs no polling), and lets go. The wait has a deadline; past it the records
//! are delivered again to the next owner, which is harmless. Partitions that are *lost* belong to somebody else by now, so
//! nothing is waited for and nothing committed.

use super::config::KafkaSourceConfig;
use super::{errors, start};
use crate::error::Error;
use crate::health::HealthCell;
use crate::metrics;
use crate::record::TopicPartition;
use crate::source::{AssignedPartition, Event, InitialOffset, Queue, QueueLimits, Release};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// A member that leaves waits for a question that is open for so long.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// A partition that this member owns. Only the thread that polls uses it; the atomics are there because the context of a
/// client has to be `Sync`.
pub(super) struct Slot {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) queue: Arc<Queue>,
    paused: AtomicBool,
    /// The offset after the last record that was taken: one that comes again is dropped. 0 before the first one.
    next: AtomicI64,
    /// The offset of the first record that was taken: where a group is that has not committed. -1 before.
    first: AtomicI64,
    /// The end of the partition when it was asked for, or -1.
    end: AtomicI64,
    /// Given away: its queue is closed.
    gone: AtomicBool,
}

impl Slot {
    /// Whether it was given away.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether the record at `offset` is to be queued; if so, no other up to it is any more.
    pub(super) fn advance(&self, offset: i64) -> bool {
        let next = self.next.load(Ordering::Relaxed);
        let new = offset >= next;
        if new {
            if next == 0 {
                self.first.store(offset, Ordering::Relaxed);
            }
            self.next.store(offset + 1, Ordering::Relaxed);
        }
        new
    }

    /// Notes that it is to be paused; `false` if it was noted before.
    pub(super) fn pause(&self) -> bool {
        !self.paused.swap(true, Ordering::Relaxed)
    }

    /// How many records the group has not committed, as far as that is known. Statistics know the end from what was fetched
    /// last, so not while a partition is paused.
    fn lag(&self, partition: &Partition) -> Option<i64> {
        let fetched = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
        let end = fetched.max(self.end.load(Ordering::Relaxed));
        let places = [partition.committed_offset, self.first.load(Ordering::Relaxed), partition.next_offset];
        let from = places.into_iter().find(|place| *place >= 0)?;
        (end >= 0).then(|| (end - from).max(0))
    }

    fn close(&self) {
        self.gone.store(true, Ordering::Relaxed);
        self.queue.close();
    }
}

type Topics = HashMap<Arc<str>, HashMap<i32, Arc<Slot>>>;

/// The context of the Kafka client: the partitions that it owns.
pub(super) struct Assignment {
    topics: Mutex<Topics>,
    events: Sender<Result<Event, Error>>,
    group: String,
    limits: QueueLimits,
    revoke_timeout: Duration,
    initial_offset: InitialOffset,
    /// Partitions in which the group is known to have an offset to begin with, if that is not the earliest one.
    placed: Mutex<HashSet<TopicPartition>>,
    health: Arc<HealthCell>,
    /// The group refuses this member, or a topic is forbidden. It is told once, so that only an assignment or a record ends it.
    refused: AtomicBool,
    /// The consumer has finished, or is gone: nobody listens to events.
    closing: Arc<AtomicBool>,
}

impl Assignment {
    pub(super) fn new(
        events: Sender<Result<Event, Error>>,
        config: &KafkaSourceConfig,
        health: Arc<HealthCell>,
        closing: Arc<AtomicBool>,
    ) -> Self {
        Self {
            topics: Mutex::default(),
            events,
            group: config.group.clone(),
            limits: config.queue,
            revoke_timeout: config.revoke_timeout,
            initial_offset: config.initial_offset,
            placed: Mutex::default(),
            health,
            refused: AtomicBool::new(false),
            closing,
        }
    }

    /// The partition, if this member owns it. A record of another came out of librdkafka's queue too late.
    pub(super) fn slot(&self, topic: &str, partition: i32) -> Option<Arc<Slot>> {
        self.lock().get(topic)?.get(&partition).cloned()
    }

    /// A record or an assignment came: the brokers answer, and let this member in.
    pub(super) fn ready(&self) {
        self.refused.store(false, Ordering::Relaxed);
        self.health.ready();
    }

    /// Notes what an error of this member means.
    pub(super) fn note(&self, error: &KafkaError) {
        match errors::exclusion(error) {
            Some(reason) => {
                tracing::error!(%error, group = self.group, "this member of the group is refused");
                self.refused.store(true, Ordering::Relaxed);
                self.health.failing(format!("group {}: {reason}", self.group));
            }
            None => tracing::debug!(%error, "poll"),
        }
    }

    /// Takes out the partitions that are paused and have room again.
    pub(super) fn resumable(&self) -> Vec<TopicPartition> {
        let mut resumable = Vec::new();
        for (topic, partitions) in self.lock().iter() {
            let has_room = |slot: &Slot| slot.paused.load(Ordering::Relaxed) && slot.queue.room() > 0;
            for (&partition, slot) in partitions.iter().filter(|(_, slot)| has_room(slot)) {
                slot.paused.store(false, Ordering::Relaxed);
                resumable.push(TopicPartition { topic: Arc::clone(topic), partition });
            }
        }
        resumable
    }

    pub(super) fn any_paused(&self) -> bool {
        self.lock().values().flat_map(HashMap::values).any(|slot| slot.paused.load(Ordering::Relaxed))
    }

    /// Asks how long the paused partitions have become meanwhile: no fetch tells that. Blocks.
    pub(super) fn ask_ends(&self, consumer: &BaseConsumer<Self>) {
        let mut wanted = list([]);
        for (topic, partitions) in self.lock().iter() {
            for partition in partitions.values().filter(|slot| slot.paused.load(Ordering::Relaxed)) {
                // A valid offset of a list that is made here.
                drop(wanted.add_partition_offset(topic, partition.partition, Offset::End));
            }
        }
        if wanted.count() == 0 {
            return;
        }
        match consumer.offsets_for_times(wanted, ASK_TIMEOUT) {
            Ok(ends) => {
                for end in ends.elements() {
                    if let (Offset::Offset(offset), Some(slot)) =
                        (end.offset(), self.slot(end.topic(), end.partition()))
                    {
                        slot.end.store(offset, Ordering::Relaxed);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "cannot ask how long paused partitions are"),
        }
    }

    /// Tells the consumer, unless nobody listens any more.
    pub(super) fn tell(&self, event: Result<Event, Error>) {
        if !self.closing.load(Ordering::SeqCst) && self.events.blocking_send(event).is_err() {
            self.closing.store(true, Ordering::SeqCst);
        }
    }

    /// Sees to it that the group has an offset to begin with in each partition, unless this member has seen one before. `false`:
    /// nothing may begin.
    fn place(&self, consumer: &BaseConsumer<Self>, assigned: &[TopicPartition]) -> bool {
        if self.initial_offset == InitialOffset::Earliest {
            return true;
        }
        let mut placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown: Vec<&TopicPartition> = assigned.iter().filter(|at| !placed.contains(at)).collect();
        let is_placed =
            unknown.is_empty() || start::place(consumer, &list(unknown), self.initial_offset, &self.closing);
        if is_placed {
            placed.extend(assigned.iter().cloned());
        }
        is_placed
    }

    fn assign(&self, list: &TopicPartitionList) {
        let mut assigned = Vec::new();
        {
            let mut topics = self.lock();
            for partition in partitions(list) {
                // Where the group goes on is not known here, so nothing counts as done until something is.
                let queue = Arc::new(Queue::new(self.limits, -1, None));
                let slot = Slot {
                    topic: Arc::clone(&partition.topic),
                    partition: partition.partition,
                    queue: Arc::clone(&queue),
                    paused: AtomicBool::new(false),
                    next: AtomicI64::new(0),
                    first: AtomicI64::new(-1),
                    end: AtomicI64::new(-1),
                    gone: AtomicBool::new(false),
                };
                let slots = topics.entry(Arc::clone(&partition.topic)).or_default();
                slots.insert(partition.partition, Arc::new(slot));
                assigned.push(AssignedPartition { partition, queue });
            }
        }
        self.ready();
        if !assigned.is_empty() {
            self.tell(Ok(Event::Assigned(assigned)));
        }
    }

    fn revoke(&self, list: &TopicPartitionList, lost: bool) {
        let revoked = partitions(list);
        if lost {
            self.forget(&revoked);
            self.tell(Ok(Event::Lost(revoked)));
            return;
        }
        let (signal, released) = mpsc::sync_channel(1);
        self.tell(Ok(Event::Revoked { partitions: revoked.clone(), release: Release::new(signal) }));
        if let Err(RecvTimeoutError::Timeout) = released.recv_timeout(self.revoke_timeout) {
            tracing::warn!("partitions go before the consumer has finished with them");
        }
        self.forget(&revoked);
    }

    fn forget(&self, gone: &[TopicPartition]) {
        let mut topics = self.lock();
        for partition in gone {
            let slot = topics.get_mut(&partition.topic).and_then(|slots| slots.remove(&partition.partition));
            if let Some(slot) = slot {
                slot.close();
            }
            metrics::lag(&self.group, &partition.topic, partition.partition).set(0);
        }
    }

    /// Ends all queues: the thread is about to end.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        let mut topics = self.lock();
        topics.values().flat_map(HashMap::values).for_each(|slot| slot.close());
        topics.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Assignment {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if errors::is_offset_reset(level, facility) {
            tracing::error!(
                group = self.group,
                message,
                "the offset to go on from is not there: records were removed unread, or come again; look at the topic's retention"
            );
            return metrics::offset_resets(&self.group).increment(1);
        }
        errors::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        errors::note(&self.health, &error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let is_up = statistics.brokers.values().any(|broker| broker.state == "UP");
        if is_up && !self.refused.load(Ordering::Relaxed) {
            self.health.ready();
        }
        let topics = self.lock();
        for (name, slots) in topics.iter() {
            let Some(topic) = statistics.topics.get(&**name) else { continue };
            for (number, slot) in slots {
                if let Some(lag) = topic.partitions.get(number).and_then(|partition| slot.lag(partition)) {
                    metrics::lag(&self.group, name, *number).set(lag as f64);
                }
            }
        }
    }
}

impl ConsumerContext for Assignment {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if self.place(consumer, &partitions(list)) {
                    self.assign(list);
                }
            }
            Rebalance::Revoke(list) => self.revoke(list, consumer.assignment_lost()),
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance failed"),
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // A partition that was paused when it went is still paused when it comes back.
        if let Rebalance::Assign(list) = rebalance
            && list.count() > 0
            && let Err(error) = consumer.resume(list)
        {
            tracing::error!(%error, "cannot resume assigned partitions");
        }
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = list.elements();
    elements.iter().map(|e| TopicPartition { topic: e.topic().into(), partition: e.partition() }).collect()
}

pub(super) fn list<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for TopicPartition { topic, partition } in partitions {
        list.add_partition(topic, *partition);
    }
    list
}
