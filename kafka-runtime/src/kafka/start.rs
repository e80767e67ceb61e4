//! Where a group begins in partitions that it has committed no offset of.

use super::assignment::Assignment;
use crate::source::InitialOffset;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 4;

/// Commits the beginning of the partitions that the group is new to, just before they are assigned: the client then finds
/// it like any other committed offset, and whatever happens next it is not looked up again. Nothing needs to be done for the
/// earliest one, which is where the client begins by itself.
pub(super) fn place(
    consumer: &BaseConsumer<Assignment>,
    assigned: &TopicPartitionList,
    initial: InitialOffset,
) -> KafkaResult<()> {
    if initial == InitialOffset::Earliest || assigned.count() == 0 {
        return Ok(());
    }
    let mut attempt = 1;
    loop {
        match try_to_place(consumer, assigned, initial) {
            Err(error) if attempt < ATTEMPTS => {
                tracing::warn!(%error, attempt, "cannot look up where to begin, trying again");
                attempt += 1;
            }
            result => return result,
        }
    }
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
