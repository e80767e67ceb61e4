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
use crate::record::{Record, TopicPartition};
use crate::source::{AssignedPartition, Event, InitialOffset, Queue, QueueLimits, Release};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;

struct Slot {
    queue: Arc<Queue>,
    paused: bool,
    /// The offset after the last record that was queued: one that comes again is dropped.
    next: i64,
}

type Topics = HashMap<Arc<str>, HashMap<i32, Slot>>;

/// The context of the Kafka client: the partitions that it owns.
pub(super) struct Assignment {
    topics: Mutex<Topics>,
    events: Sender<Result<Event, Error>>,
    limits: QueueLimits,
    revoke_timeout: Duration,
    initial_offset: InitialOffset,
    health: Arc<HealthCell>,
    /// The consumer has finished, or is gone: nobody listens to events.
    closing: Arc<AtomicBool>,
}

/// What became of a record.
pub(super) enum Taken {
    Queued,
    /// It was queued, and its partition should be paused.
    Full(TopicPartition),
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
            limits: config.queue,
            revoke_timeout: config.revoke_timeout,
            initial_offset: config.initial_offset,
            health,
            closing,
        }
    }

    /// Queues a record for the worker of its partition.
    pub(super) fn take(&self, message: &BorrowedMessage<'_>) -> Taken {
        self.health.ready();
        let mut topics = self.lock();
        // Not owned any more: it came out of librdkafka's queue too late.
        let Some((topic, partitions)) = topics.iter_mut().find(|(topic, _)| ***topic == *message.topic())
        else {
            return Taken::Queued;
        };
        let Some(slot) = partitions.get_mut(&message.partition()) else { return Taken::Queued };
        if message.offset() < slot.next {
            return Taken::Queued;
        }
        slot.next = message.offset() + 1;
        if slot.queue.push(record(topic, message)) && !slot.paused {
            slot.paused = true;
            return Taken::Full(TopicPartition { topic: Arc::clone(topic), partition: message.partition() });
        }
        Taken::Queued
    }

    /// Takes out the partitions that are paused and have room again.
    pub(super) fn resumable(&self) -> Vec<TopicPartition> {
        let mut resumable = Vec::new();
        for (topic, partitions) in self.lock().iter_mut() {
            for (&partition, slot) in
                partitions.iter_mut().filter(|(_, slot)| slot.paused && slot.queue.room() > 0)
            {
                slot.paused = false;
                resumable.push(TopicPartition { topic: Arc::clone(topic), partition });
            }
        }
        resumable
    }

    pub(super) fn any_paused(&self) -> bool {
        self.lock().values().flat_map(HashMap::values).any(|slot| slot.paused)
    }

    /// Tells the consumer, unless nobody listens any more.
    pub(super) fn tell(&self, event: Result<Event, Error>) {
        if !self.closing.load(Ordering::SeqCst) && self.events.blocking_send(event).is_err() {
            self.closing.store(true, Ordering::SeqCst);
        }
    }

    fn assign(&self, list: &TopicPartitionList) {
        let mut assigned = Vec::new();
        {
            let mut topics = self.lock();
            for partition in partitions(list) {
                // Where the group goes on is not known here, so nothing counts as done until something is.
                let queue = Arc::new(Queue::new(self.limits, -1, None));
                let slot = Slot { queue: Arc::clone(&queue), paused: false, next: 0 };
                topics.entry(Arc::clone(&partition.topic)).or_default().insert(partition.partition, slot);
                assigned.push(AssignedPartition { partition, queue });
            }
        }
        self.health.ready();
        self.tell(Ok(Event::Assigned(assigned)));
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
                slot.queue.close();
            }
            metrics::lag(&partition.topic, partition.partition).set(0);
        }
    }

    /// Ends all queues: the thread is about to end.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        let mut topics = self.lock();
        topics.values().flat_map(HashMap::values).for_each(|slot| slot.queue.close());
        topics.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Assignment {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        errors::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        errors::note(&self.health, &error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.state == "UP") {
            self.health.ready();
        }
        let topics = self.lock();
        for (name, slots) in topics.iter() {
            let Some(topic) = statistics.topics.get(&**name) else { continue };
            for number in slots.keys() {
                let lag = topic.partitions.get(number).map_or(-1, |partition| partition.consumer_lag);
                if lag >= 0 {
                    metrics::lag(name, *number).set(lag as f64);
                }
            }
        }
    }
}

impl ConsumerContext for Assignment {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                if let Err(source) = start::place(consumer, list, self.initial_offset) {
                    self.tell(Err(Error::Kafka { action: "look up where to begin", source }));
                }
                self.assign(list);
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

fn record(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Record {
    let bytes = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec().into();
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|header| (header.key.to_owned(), bytes(header.value))).collect());
    Record {
        topic: Arc::clone(topic),
        partition: message.partition(),
        offset: message.offset(),
        key: bytes(message.key()),
        payload: bytes(message.payload()),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
    }
}
