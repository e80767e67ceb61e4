//! Where a group begins in partitions that it has committed no offset of.

use super::assignment::Assignment;
use crate::error::Error;
use crate::source::InitialOffset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Commits the beginning of the partitions that the group is new to, just before they are assigned: the client then finds
/// it like any other committed offset, and whatever happens next it is not looked up again. Nothing needs to be done for the
/// earliest one, which is where the client begins by itself.
///
/// A member that went on without would begin elsewhere, so this is tried until the brokers answer. `false`: it is not to begin at
/// all, because it closes, or because the group has gone on without it and will assign anew.
pub(super) fn place(
    consumer: &BaseConsumer<Assignment>,
    unknown: &TopicPartitionList,
    initial: InitialOffset,
    closing: &AtomicBool,
) -> bool {
    while !closing.load(Ordering::SeqCst) {
        let Err(source) = try_to_place(consumer, unknown, initial) else { return true };
        let error = Error::Kafka { action: "look up where to begin", source };
        tracing::warn!(error = &error as &dyn std::error::Error, "the group does not begin yet");
        if error.is_fenced() {
            return false;
        }
        std::thread::park_timeout(AGAIN_AFTER);
    }
    false
}

fn try_to_place(
    consumer: &BaseConsumer<Assignment>,
    assigned: &TopicPartitionList,
    initial: InitialOffset,
) -> KafkaResult<()> {
    let committed = consumer.committed_offsets(assigned.clone(), TIMEOUT)?;
    let mut wanted = TopicPartitionList::new();
    for partition in committed.elements() {
        partition.error()?;
        if !matches!(partition.offset(), Offset::Offset(_)) {
            let wish = match initial {
                InitialOffset::Time { ms } => Offset::Offset(ms),
                InitialOffset::Earliest | InitialOffset::Latest => Offset::End,
            };
            wanted.add_partition_offset(partition.topic(), partition.partition(), wish)?;
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
            // The end: nothing is there yet that is late enough.
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
    use crate::kafka::{KafkaConfig, KafkaSourceConfig};
    use rdkafka::config::FromClientConfigAndContext;
    use std::sync::Arc;

    #[test]
    fn a_look_up_that_fails_is_tried_until_the_member_closes() {
        // Nothing listens on port 1.
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
        assert!(!place(&consumer, &assigned, InitialOffset::Latest, &closing));
        assert!(closing.load(Ordering::SeqCst), "not before");
        assert!(events.try_recv().is_err(), "the consumer does not end of it");
        later.join().unwrap();
    }
}
