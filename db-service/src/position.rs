//! The position in the log: which of its records are decided, and where a consumer must begin to read.
//!
//! The transaction that saves a part of the log also raises the position of its partition. So a store that has lost transactions, or
//! was restored from a backup, knows which records it lacks, and an entry that was rejected once is never stored later.

use crate::item::Item;
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{FindStartOffsetRequest, SaveRequest},
};
use std::ops::Range;

/// Longest name of a topic, the limit of Kafka.
const MAX_TOPIC: usize = 249;

/// A partition of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogPartition {
    /// Topic.
    pub(crate) topic: String,
    /// Number of the partition.
    pub(crate) number: i32,
}

impl LogPartition {
    /// Validates a partition.
    ///
    /// # Errors
    /// `INVALID_REQUEST`: the topic is empty or too long, or the number is negative.
    fn new(topic: String, number: i32) -> Result<Self, ApiError> {
        if topic.is_empty() || topic.len() > MAX_TOPIC || topic.contains('\0') {
            return Err(ApiError::invalid(format!("topic must have 1 to {MAX_TOPIC} bytes without NUL")));
        }
        if number < 0 {
            return Err(ApiError::invalid(format!("partition must not be negative, but is {number}")));
        }
        Ok(Self { topic, number })
    }
}

/// A part of the log with the entries in it.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The partition.
    pub(crate) partition: LogPartition,
    /// The offsets of the part. Records that are not entries are included.
    pub(crate) range: Range<i64>,
    /// The entries in log order.
    pub(crate) items: Vec<Item>,
    /// The offset of each entry, ascending.
    pub(crate) offsets: Vec<i64>,
}

impl Batch {
    /// Validates a request.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the reason.
    pub(crate) fn new(request: SaveRequest) -> Result<Self, ApiError> {
        let SaveRequest { app, entries, topic, partition, first_offset, next_offset, offsets } = request;
        let partition = LogPartition::new(topic, partition)?;
        let range = first_offset..next_offset;
        let offsets = absolute(&range, offsets, entries.len())?;
        let item = |entry| Item::new(&app, entry);
        let items = entries.into_iter().map(item).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { partition, range, items, offsets })
    }

    /// The offsets that are decided, if the store has them from `decided` on.
    ///
    /// # Errors
    /// `CONFLICT`: the store lacks records from before this batch, although they were saved. It has lost transactions.
    pub(crate) fn decided(&self, decided: Option<Range<i64>>) -> Result<Range<i64>, ApiError> {
        let (first, decided) = (self.range.start, decided.unwrap_or(self.range.start..self.range.start));
        if decided.end < first {
            let LogPartition { topic, number } = &self.partition;
            return Err(ApiError::new(
                ErrorCode::Conflict,
                format!(
                    "the store lacks the records of {topic}/{number} from {} up to {first}, which it had saved: read them again",
                    decided.end
                ),
            ));
        }
        Ok(decided)
    }

    /// The indexes of the entries that are decided. `decided`: the offsets that are.
    pub(crate) fn known(&self, decided: &Range<i64>) -> Range<usize> {
        let first = self.offsets.partition_point(|offset| *offset < decided.start);
        let next = self.offsets.partition_point(|offset| *offset < decided.end);
        first..next.max(first)
    }

    /// A batch in a partition of its own, so that nothing in it is decided.
    #[cfg(test)]
    pub(crate) fn alone(items: Vec<Item>) -> Self {
        let end = i64::try_from(items.len()).expect("a test has few entries");
        Self { partition: unused_partition(), range: 0..end, items, offsets: (0..end).collect() }
    }
}

/// A partition that no other call gets.
#[cfg(test)]
pub(crate) fn unused_partition() -> LogPartition {
    use std::sync::atomic::{AtomicI32, Ordering};
    static NEXT: AtomicI32 = AtomicI32::new(0);
    LogPartition { topic: "test".into(), number: NEXT.fetch_add(1, Ordering::Relaxed) }
}

/// The offsets of the entries of a part. `relative`: those of the request.
fn absolute(range: &Range<i64>, relative: Vec<u64>, entries: usize) -> Result<Vec<i64>, ApiError> {
    let (first, next) = (range.start, range.end);
    if first < 0 || next < first {
        return Err(ApiError::invalid(format!(
            "first_offset {first} and next_offset {next} must be ascending and not negative"
        )));
    }
    let records = next.abs_diff(first);
    if relative.is_empty() {
        if u64::try_from(entries) == Ok(records) {
            return Ok(range.clone().collect());
        }
        if entries > 0 {
            return Err(ApiError::invalid(format!(
                "offsets must be given: {entries} entries are not all of the {records} records"
            )));
        }
    }
    let is_ascending = relative.windows(2).all(|pair| pair[0] < pair[1]);
    if relative.len() != entries || !is_ascending || relative.last().is_some_and(|last| *last >= records) {
        return Err(ApiError::invalid(format!(
            "offsets must be ascending, one for each of the {entries} entries, and less than {records}"
        )));
    }
    let offset = |relative| first.saturating_add_unsigned(relative);
    Ok(relative.into_iter().map(offset).collect())
}

/// A partition of the log that a consumer is about to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogState {
    /// The partition.
    pub(crate) partition: LogPartition,
    /// The committed offset of the consumer group, if it has committed one.
    committed: Option<i64>,
    /// The offsets that the log has.
    available: Range<i64>,
}

/// Where a consumer must begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the committed offset.
    Committed,
    /// At this offset, because the store lacks the entries that follow.
    At(i64),
    /// At this offset, which is the first one of the log. The store lacks earlier entries from its position on, and never gets them. It
    /// must forget its position, because it could not continue from there.
    AtFirst(i64),
    /// At the committed offset. The position is that of another log and must be forgotten: by it, new records would count as decided.
    Forget,
}

impl LogState {
    /// Validates a request.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with the reason.
    pub(crate) fn new(request: FindStartOffsetRequest) -> Result<Self, ApiError> {
        let FindStartOffsetRequest { topic, partition, committed_offset, first_offset, end_offset } = request;
        let partition = LogPartition::new(topic, partition)?;
        if first_offset < 0 || end_offset < first_offset || committed_offset.is_some_and(|offset| offset < 0)
        {
            return Err(ApiError::invalid(format!(
                "first_offset {first_offset} and end_offset {end_offset} must be ascending, and no offset negative"
            )));
        }
        Ok(Self { partition, committed: committed_offset, available: first_offset..end_offset })
    }

    /// Where to begin with this position of the store.
    ///
    /// A store without a position has saved nothing of the partition, or is a backup from before its first record: it lacks all
    /// records that the log has, also those that are committed.
    ///
    /// A log that ends before the position, or that has records of which the group has committed none, is not the log of the
    /// position: it was replaced. Its records must all be decided. If it is the same log after all, they are found to be duplicates.
    pub(crate) fn start(&self, position: Option<i64>) -> Start {
        let Range { start: first, end } = self.available;
        match (position, self.committed) {
            (None, Some(committed)) if first < committed => Start::At(first),
            (None, _) => Start::Committed,
            (Some(position), _) if position > end => Start::Forget,
            (Some(position), None) if position > first => Start::Forget,
            (Some(position), _) if position < first => Start::AtFirst(first),
            (Some(position), Some(committed)) if position < committed => Start::At(position),
            (Some(_), _) => Start::Committed,
        }
    }

    /// Tells the operator the meaning of a start, if it is not the usual one. `position`: that of the store.
    pub(crate) fn log(&self, start: Start, position: Option<i64>) {
        let LogState { partition: LogPartition { topic, number: partition }, committed, available } = self;
        let (first, end) = (available.start, available.end);
        match start {
            Start::Committed => {}
            Start::At(offset) => tracing::warn!(
                topic,
                partition,
                offset,
                committed,
                "the store lacks entries that were committed; reading them again from this offset on"
            ),
            Start::AtFirst(_) => tracing::warn!(
                topic,
                partition,
                position,
                first,
                "the store lacks entries that the log no longer has: those between its position and the first record of the log"
            ),
            Start::Forget => tracing::warn!(
                topic,
                partition,
                position,
                committed,
                first,
                end,
                "the log is not the one from which the store last saved; reading from the committed offset, or from the first record"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
