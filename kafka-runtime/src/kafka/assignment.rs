//! The partitions that this member owns, and rebalances.
//!
//! librdkafka calls [`pre_rebalance`](ConsumerContext::pre_rebalance) on the polling thread, and the group
//! waits until it returns. For a revocation this is the last moment at which this member may commit: the
//! consumer finishes the records in flight, commits from its own task (a commit needs no polling), and releases
//! the partitions. The wait has a deadline. After it the next owner gets the uncommitted records again, which
//! is harmless. *Lost* partitions already belong to another member: nothing is waited for and nothing
//! committed.

use super::config::KafkaSourceConfig;
use super::errors;
use super::owned::OwnedPartition;
use super::start::{Policy, Starts};
use crate::error::Error;
use crate::health::HealthCell;
use crate::metrics;
use crate::record::TopicPartition;
use crate::source::{AssignedPartition, Event, Queue, QueueLimits, Release};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// A query delays a member that leaves by up to this time.
const QUERY_TIMEOUT: Duration = Duration::from_secs(1);

type Topics = HashMap<Arc<str>, HashMap<i32, Arc<OwnedPartition>>>;

/// The context of the Kafka client: the partitions that it owns.
pub(super) struct Assignment {
    topics: Mutex<Topics>,
    events: Sender<Result<Event, Error>>,
    group: String,
    limits: QueueLimits,
    revoke_timeout: Duration,
    policy: Policy,
    /// Partitions in which the group is known to have a committed offset. Used only without a hook that chooses start offsets.
    with_offset: Mutex<HashSet<TopicPartition>>,
    health: Arc<HealthCell>,
    /// The group refuses this member, or a topic is forbidden. librdkafka reports this once, so it holds until
    /// the next assignment or record.
    refused: AtomicBool,
    /// The consumer has finished, or was dropped: no task receives events.
    closing: Arc<AtomicBool>,
}

impl Assignment {
    pub(super) fn new(
        events: Sender<Result<Event, Error>>,
        config: &KafkaSourceConfig,
        health: Arc<HealthCell>,
        closing: Arc<AtomicBool>,
        policy: Policy,
    ) -> Self {
        Self {
            topics: Mutex::default(),
            events,
            group: config.group.clone(),
            limits: config.queue,
            revoke_timeout: config.revoke_timeout,
            policy,
            with_offset: Mutex::default(),
            health,
            refused: AtomicBool::new(false),
            closing,
        }
    }

    /// The partition, if this member owns it. librdkafka's queue may still hold records of partitions that were
    /// taken away.
    pub(super) fn owned(&self, topic: &str, partition: i32) -> Option<Arc<OwnedPartition>> {
        self.lock().get(topic)?.get(&partition).cloned()
    }

    /// Called for each record and each assignment: they prove that the brokers answer and have admitted this
    /// member.
    pub(super) fn ready(&self) {
        self.refused.store(false, Ordering::Relaxed);
        self.health.ready();
    }

    /// Evaluates an error that polling returned.
    pub(super) fn record_error(&self, error: &KafkaError) {
        match errors::membership_error(error) {
            Some(reason) => {
                tracing::error!(%error, group = self.group, "the brokers refuse this member of the group");
                self.refused.store(true, Ordering::Relaxed);
                self.health.failing(format!("group {}: {reason}", self.group));
            }
            None => tracing::debug!(%error, "poll"),
        }
    }

    /// Returns the partitions that are paused and have room again, and marks them as running.
    pub(super) fn resumable(&self) -> Vec<TopicPartition> {
        let mut resumable = Vec::new();
        for (topic, partitions) in self.lock().iter() {
            let has_room = |owned: &OwnedPartition| owned.is_paused() && owned.queue.room() > 0;
            for (&partition, owned) in partitions.iter().filter(|(_, owned)| has_room(owned)) {
                owned.resume();
                resumable.push(TopicPartition { topic: Arc::clone(topic), partition });
            }
        }
        resumable
    }

    pub(super) fn any_paused(&self) -> bool {
        self.lock().values().flat_map(HashMap::values).any(|owned| owned.is_paused())
    }

    /// Queries the ends of the paused partitions, which no fetch reports. Blocks.
    pub(super) fn query_ends(&self, consumer: &BaseConsumer<Self>) {
        let mut wanted = list([]);
        for (topic, partitions) in self.lock().iter() {
            for partition in partitions.values().filter(|owned| owned.is_paused()) {
                // Cannot fail: `Offset::End` is a valid offset.
                drop(wanted.add_partition_offset(topic, partition.partition, Offset::End));
            }
        }
        if wanted.count() == 0 {
            return;
        }
        match consumer.offsets_for_times(wanted, QUERY_TIMEOUT) {
            Ok(ends) => {
                for end in ends.elements() {
                    if let (Offset::Offset(offset), Some(owned)) =
                        (end.offset(), self.owned(end.topic(), end.partition()))
                    {
                        owned.set_end(offset);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "cannot query the ends of paused partitions"),
        }
    }

    /// Sends an event to the consumer. If the consumer is gone, the source closes.
    pub(super) fn send(&self, event: Result<Event, Error>) {
        if !self.closing.load(Ordering::SeqCst) && self.events.blocking_send(event).is_err() {
            self.closing.store(true, Ordering::SeqCst);
        }
    }

    /// Makes sure that the committed offset of each partition is its start offset. Without a hook, skips partitions that this member
    /// has checked before. Returns the start offsets that are known; `None` if the partitions must not be read.
    fn ensure_start_offsets(
        &self,
        consumer: &BaseConsumer<Self>,
        assigned: &[TopicPartition],
    ) -> Option<Starts> {
        if self.policy.is_default() || assigned.is_empty() {
            return Some(Starts::new());
        }
        let ensure = |partitions: &TopicPartitionList| {
            self.policy.ensure_offsets(consumer, partitions, &self.health, &self.closing)
        };
        if self.policy.hook.is_some() {
            return ensure(&list(assigned));
        }
        let mut with_offset = self.with_offset.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown: Vec<&TopicPartition> = assigned.iter().filter(|at| !with_offset.contains(at)).collect();
        let starts = if unknown.is_empty() { Starts::new() } else { ensure(&list(unknown))? };
        with_offset.extend(assigned.iter().cloned());
        Some(starts)
    }

    fn assign(&self, list: &TopicPartitionList, starts: &Starts) {
        let mut assigned = Vec::new();
        {
            let mut topics = self.lock();
            for partition in partitions(list) {
                // If the start offset is not known, no record counts as processed yet.
                let done = starts.get(&partition).copied().unwrap_or(-1);
                let queue = Arc::new(Queue::new(self.limits, done, None));
                let TopicPartition { topic, partition: number } = &partition;
                let owned = OwnedPartition::new(Arc::clone(topic), *number, Arc::clone(&queue));
                topics.entry(Arc::clone(topic)).or_default().insert(*number, Arc::new(owned));
                assigned.push(AssignedPartition { partition, queue });
            }
        }
        self.ready();
        if !assigned.is_empty() {
            self.send(Ok(Event::Assigned(assigned)));
        }
    }

    fn revoke(&self, list: &TopicPartitionList, lost: bool) {
        let revoked = partitions(list);
        if lost {
            self.remove(&revoked);
            self.send(Ok(Event::Lost(revoked)));
            return;
        }
        let (signal, released) = mpsc::sync_channel(1);
        self.send(Ok(Event::Revoked { partitions: revoked.clone(), release: Release::new(signal) }));
        if let Err(RecvTimeoutError::Timeout) = released.recv_timeout(self.revoke_timeout) {
            tracing::warn!("partitions move to another member before the consumer has finished with them");
        }
        self.remove(&revoked);
    }

    fn remove(&self, removed: &[TopicPartition]) {
        let mut topics = self.lock();
        for partition in removed {
            let owned = topics.get_mut(&partition.topic).and_then(|owned| owned.remove(&partition.partition));
            if let Some(owned) = owned {
                owned.close();
            }
            metrics::lag(&self.group, &partition.topic, partition.partition).set(0);
        }
    }

    /// Closes all queues, before the thread ends.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        let mut topics = self.lock();
        topics.values().flat_map(HashMap::values).for_each(|owned| owned.close());
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
                "the committed offset no longer exists: records were removed before they were read, or are delivered again; check the retention of the topic"
            );
            return metrics::offset_resets(&self.group).increment(1);
        }
        errors::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        errors::update_health(&self.health, &error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let is_up = statistics.brokers.values().any(|broker| broker.state == "UP");
        if is_up && !self.refused.load(Ordering::Relaxed) {
            self.health.ready();
        }
        let topics = self.lock();
        for (name, partitions) in topics.iter() {
            let Some(topic) = statistics.topics.get(&**name) else { continue };
            for (number, owned) in partitions {
                if let Some(lag) = topic.partitions.get(number).and_then(|partition| owned.lag(partition)) {
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
                if let Some(starts) = self.ensure_start_offsets(consumer, &partitions(list)) {
                    self.assign(list, &starts);
                }
            }
            Rebalance::Revoke(list) => self.revoke(list, consumer.assignment_lost()),
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance failed"),
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // A partition that was paused when it was revoked is still paused when it is assigned again.
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
