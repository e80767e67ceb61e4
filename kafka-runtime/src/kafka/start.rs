//! The start offsets of a group: in partitions in which it has committed none, and where the consumer chooses them.

use crate::error::Error;
use crate::health::HealthCell;
use crate::record::TopicPartition;
use crate::source::{self, InitialOffset, PartitionStart, StartOffsets};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

const TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a partition after others have used up [`TIMEOUT`].
const LEAST_TIMEOUT: Duration = Duration::from_millis(100);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How the start offsets are chosen.
pub(super) struct Policy {
    pub(super) initial: InitialOffset,
    /// The hook of the consumer, and the runtime on which it runs.
    pub(super) hook: Option<(StartOffsets, Handle)>,
}

/// The committed offset of each partition. `None`: the group has committed none.
type Committed = Vec<(TopicPartition, Option<i64>)>;

/// The start offsets of partitions.
pub(super) type Starts = HashMap<TopicPartition, i64>;

impl Policy {
    /// Whether the client finds the start offsets of all partitions by itself.
    pub(super) fn is_default(&self) -> bool {
        self.initial == InitialOffset::Earliest && self.hook.is_none()
    }

    /// Commits the start offsets of partitions just before they are assigned. The client then finds them like any other committed
    /// offsets, and those of the group are not looked up again. `Earliest` without a hook needs no commit, because the client
    /// starts there by itself.
    ///
    /// Retries until the brokers and the hook answer, because without the commit the member would start at the wrong offset. Returns
    /// the start offsets that are known; `None` if the member must not start: it closes, or the group has continued without it and will reassign
    /// partitions.
    pub(super) fn ensure_offsets(
        &self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        assigned: &TopicPartitionList,
        health: &HealthCell,
        closing: &AtomicBool,
    ) -> Option<Starts> {
        while !closing.load(Ordering::SeqCst) {
            let error = match self.commit_start_offsets(consumer, assigned) {
                Ok(starts) => return Some(starts),
                Err(error) => error,
            };
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot set the start offset of the group, trying again"
            );
            if error.is_fenced() {
                return None;
            }
            health.failing(error.describe());
            std::thread::park_timeout(AGAIN_AFTER);
        }
        None
    }

    fn commit_start_offsets(
        &self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        assigned: &TopicPartitionList,
    ) -> Result<Starts, Error> {
        let failed = |source| Error::Kafka { action: "look up the start offset", source };
        let committed = committed(consumer, assigned).map_err(failed)?;
        let mut begin = self.initial_offsets(consumer, &committed).map_err(failed)?;
        let mut starts = Starts::new();
        if let Some((hook, runtime)) = &self.hook {
            let asked = with_bounds(consumer, committed).map_err(failed)?;
            let chosen = runtime.block_on(source::choose(hook, asked.clone()))?;
            for (PartitionStart { partition, committed, first, end }, (_, chosen)) in
                asked.into_iter().zip(chosen)
            {
                let initial =
                    Some(first).filter(|_| committed.is_none() && self.initial == InitialOffset::Earliest);
                if let Some(start) = chosen.or(initial).filter(|start| Some(*start) != committed) {
                    begin.insert(partition.clone(), start);
                }
                // The client replaces a committed offset that the log does not have by the first one.
                let start = begin.get(&partition).copied().or(committed).filter(|start| *start <= end);
                starts.extend(start.map(|start| (partition, start.max(first))));
            }
        }
        commit(consumer, &begin)
            .map_err(|source| Error::Kafka { action: "commit the start offset", source })?;
        Ok(starts)
    }

    /// The start offsets of the partitions in which the group has committed none. Empty with `Earliest`.
    fn initial_offsets(
        &self,
        consumer: &BaseConsumer<impl ConsumerContext>,
        committed: &Committed,
    ) -> KafkaResult<Starts> {
        let is_earliest = self.initial == InitialOffset::Earliest;
        let new = committed.iter().filter(|(_, committed)| committed.is_none() && !is_earliest);
        let mut wanted = TopicPartitionList::new();
        for (TopicPartition { topic, partition }, _) in new {
            let target = match self.initial {
                InitialOffset::Time { ms } => Offset::Offset(ms),
                InitialOffset::Earliest | InitialOffset::Latest => Offset::End,
            };
            wanted.add_partition_offset(topic, *partition, target)?;
        }
        if wanted.count() > 0 && matches!(self.initial, InitialOffset::Time { .. }) {
            wanted = consumer.offsets_for_times(wanted, TIMEOUT)?;
        }
        let mut begin = Starts::new();
        for partition in wanted.elements() {
            partition.error()?;
            let (topic, number) = (partition.topic(), partition.partition());
            let offset = match partition.offset() {
                Offset::Offset(offset) => offset,
                // The end of the partition: no record is recent enough yet.
                _ => consumer.fetch_watermarks(topic, number, TIMEOUT)?.1,
            };
            begin.insert(TopicPartition { topic: topic.into(), partition: number }, offset);
        }
        Ok(begin)
    }
}

/// Adds the bounds of the partitions. Leaves out partitions that do not answer, unless that are all: a partition without a leader must
/// not keep the others from being read. Such a partition begins at its committed offset.
fn with_bounds(
    consumer: &BaseConsumer<impl ConsumerContext>,
    committed: Committed,
) -> KafkaResult<Vec<PartitionStart>> {
    let deadline = Instant::now() + TIMEOUT;
    let (mut starts, mut failure) = (Vec::new(), None);
    for (partition, committed) in committed {
        let left = deadline.saturating_duration_since(Instant::now()).max(LEAST_TIMEOUT);
        match consumer.fetch_watermarks(&partition.topic, partition.partition, left) {
            Ok((first, end)) => starts.push(PartitionStart { partition, committed, first, end }),
            Err(error) => {
                tracing::warn!(%error, %partition, "the bounds of a partition are unknown; it begins at its committed offset");
                failure = Some(error);
            }
        }
    }
    match failure {
        Some(error) if starts.is_empty() => Err(error),
        _ => Ok(starts),
    }
}

fn committed(
    consumer: &BaseConsumer<impl ConsumerContext>,
    assigned: &TopicPartitionList,
) -> Result<Committed, KafkaError> {
    let found = consumer.committed_offsets(assigned.clone(), TIMEOUT)?;
    let committed = found.elements().into_iter().map(|partition| {
        partition.error()?;
        let offset = match partition.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let (topic, partition) = (Arc::from(partition.topic()), partition.partition());
        Ok((TopicPartition { topic, partition }, offset))
    });
    committed.collect()
}

fn commit(consumer: &BaseConsumer<impl ConsumerContext>, offsets: &Starts) -> KafkaResult<()> {
    if offsets.is_empty() {
        return Ok(());
    }
    let mut begin = TopicPartitionList::new();
    for (TopicPartition { topic, partition }, offset) in offsets {
        begin.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    consumer.commit(&begin, CommitMode::Sync)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Health, HealthCell};
    use crate::kafka::assignment::Assignment;
    use crate::kafka::{KafkaConfig, KafkaSourceConfig};
    use rdkafka::config::FromClientConfigAndContext;
    use std::sync::Arc;

    #[test]
    fn a_failing_look_up_is_retried_until_the_member_closes() {
        // No process listens on port 1.
        let kafka = KafkaConfig::new(vec!["127.0.0.1:1".into()], "nobody");
        let config = KafkaSourceConfig::new(kafka, "group", &["t"]);
        let (sender, mut events) = tokio::sync::mpsc::channel(1);
        let (health, closing) =
            (Arc::new(HealthCell::new(Health::Starting)), Arc::new(AtomicBool::new(false)));
        let policy = Policy { initial: InitialOffset::Latest, hook: None };
        let assignment = Assignment::new(sender, &config, Arc::clone(&health), Arc::clone(&closing), policy);
        let consumer = BaseConsumer::from_config_and_context(&config.client(), assignment).unwrap();
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition("t", 0);
        let closes = Arc::clone(&closing);
        let later = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(TIMEOUT.as_millis() as u64 + 1_000));
            closes.store(true, Ordering::SeqCst);
        });
        let policy = Policy { initial: InitialOffset::Latest, hook: None };
        assert!(policy.ensure_offsets(&consumer, &assigned, &health, &closing).is_none());
        assert!(matches!(health.get(), Health::Failing { .. }));
        assert!(closing.load(Ordering::SeqCst), "it must retry until the member closes");
        assert!(events.try_recv().is_err(), "the failure must not end the consumer");
        later.join().unwrap();
    }
}
