//! The start offset of a group in partitions in which it has committed none.

use crate::error::Error;
use crate::source::InitialOffset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Commits the start offset for partitions that are new to the group, just before they are assigned. The client
/// then finds it like any other committed offset, and it is not looked up again. `Earliest` needs no commit,
/// because the client starts there by itself.
///
/// Retries until the brokers answer, because without the commit the member would start at the wrong offset. Returns
/// `false` if the member must not start: it closes, or the group has continued without it and will reassign partitions.
pub(super) fn ensure_offsets(
    consumer: &BaseConsumer<impl ConsumerContext>,
    unknown: &TopicPartitionList,
    initial: InitialOffset,
    closing: &AtomicBool,
) -> bool {
    while !closing.load(Ordering::SeqCst) {
        let Err(source) = commit_start_offsets(consumer, unknown, initial) else { return true };
        let error = Error::Kafka { action: "look up the start offset", source };
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "cannot set the start offset of the group, trying again"
        );
        if error.is_fenced() {
            return false;
        }
        std::thread::park_timeout(AGAIN_AFTER);
    }
    false
}

fn commit_start_offsets(
    consumer: &BaseConsumer<impl ConsumerContext>,
    assigned: &TopicPartitionList,
    initial: InitialOffset,
) -> KafkaResult<()> {
    let committed = consumer.committed_offsets(assigned.clone(), TIMEOUT)?;
    let mut wanted = TopicPartitionList::new();
    for partition in committed.elements() {
        partition.error()?;
        if !matches!(partition.offset(), Offset::Offset(_)) {
            let target = match initial {
                InitialOffset::Time { ms } => Offset::Offset(ms),
                InitialOffset::Earliest | InitialOffset::Latest => Offset::End,
            };
            wanted.add_partition_offset(partition.topic(), partition.partition(), target)?;
        }
    }
    if wanted.count() == 0 {
        return Ok(());
    }
    if matches!(initial, InitialOffset::Time { .. }) {
        wanted = consumer.offsets_for_times(wanted, TIMEOUT)?;
    }
    let mut begin = TopicPartitionList::new();
    for partition in wanted.elements() {
        partition.error()?;
        let offset = match partition.offset() {
            Offset::Offset(offset) => offset,
            // The end of the partition: no record is recent enough yet.
            _ => consumer.fetch_watermarks(partition.topic(), partition.partition(), TIMEOUT)?.1,
        };
        begin.add_partition_offset(partition.topic(), partition.partition(), Offset::Offset(offset))?;
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
        let assignment = Assignment::new(sender, &config, health, Arc::clone(&closing));
        let consumer = BaseConsumer::from_config_and_context(&config.client(), assignment).unwrap();
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition("t", 0);
        let closes = Arc::clone(&closing);
        let later = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(TIMEOUT.as_millis() as u64 + 1_000));
            closes.store(true, Ordering::SeqCst);
        });
        assert!(!ensure_offsets(&consumer, &assigned, InitialOffset::Latest, &closing));
        assert!(closing.load(Ordering::SeqCst), "it must retry until the member closes");
        assert!(events.try_recv().is_err(), "the failure must not end the consumer");
        later.join().unwrap();
    }
}
