//! The interface for reading: which member owns which partition, and the records of each partition.

mod queue;
mod start;

pub use queue::{Queue, QueueLimits};
pub(crate) use start::choose;
pub use start::{PartitionStart, StartOffsets};

use crate::error::Error;
use crate::health::Health;
use crate::record::{ProducerRecord, TopicPartition};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// A partition that was assigned to this member, and the queue of its records.
#[derive(Clone, Debug)]
pub struct AssignedPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// Its records, from the start offset on. Closed when the partition is taken away.
    pub queue: Arc<Queue>,
}

/// A change of the partitions that a [`Source`] owns.
#[derive(Debug)]
pub enum Event {
    /// This member reads these partitions from now on.
    Assigned(Vec<AssignedPartition>),
    /// These partitions are about to move to another member. The source waits until `release` is dropped, up to
    /// a deadline of its own. Until then the consumer may finish and commit the records in flight.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Drop it when everything is finished.
        release: Release,
    },
    /// These partitions belong to another member already. Do not finish or commit anything of them.
    Lost(Vec<TopicPartition>),
}

/// Lets the rebalance continue when it is dropped.
#[derive(Debug)]
pub struct Release {
    _signal: SyncSender<()>,
}

impl Release {
    #[cfg(any(test, feature = "kafka"))]
    pub(crate) fn new(signal: SyncSender<()>) -> Self {
        Self { _signal: signal }
    }
}

/// The start offset of a group in a partition in which it has committed none. It is committed at once, so that
/// a restart before the first commit of a record does not choose again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialOffset {
    /// The first stored record.
    #[default]
    Earliest,
    /// The first record that is written from now on.
    Latest,
    /// The first record with this time or a later one.
    Time {
        /// Milliseconds since 1970, UTC.
        ms: i64,
    },
}

/// The next offset to read of each partition: one past the last processed record.
pub type Offsets = Vec<(TopicPartition, i64)>;

/// Reads partitions of a log as one member of a consumer group.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Starts to read. Called once, before everything else. `start_offsets` chooses where each assigned partition begins. As long as it
    /// fails it is retried with backoff, and nothing of the partitions is read.
    async fn start(&self, start_offsets: Option<StartOffsets>) -> Result<(), Error>;

    /// The next event. Cancel safe: dropping the future loses no event. After an error the source returns no
    /// more events.
    async fn next(&self) -> Result<Event, Error>;

    /// Commits offsets: after a restart the group resumes there. Returns when they are durable.
    async fn commit(&self, offsets: Offsets) -> Result<(), Error>;

    /// Writes `outputs` and commits the offset `next` of a partition atomically, even across crashes. Returns when
    /// both are durable. After an error neither has happened, or both have. In the second case another call
    /// with the same `next` or an earlier one returns `Ok` and writes nothing.
    ///
    /// # Errors
    /// [`Error::Output`]: an output cannot be written. [`Error::Closed`]: the partition was taken away in the
    /// meantime, or the log is closed. All other errors are worth a retry.
    ///
    /// The future does not hold the source. Dropping the source leaves the group even while this call waits.
    fn transact(
        &self,
        from: &AssignedPartition,
        next: i64,
        outputs: Vec<ProducerRecord>,
    ) -> BoxFuture<'static, Result<(), Error>>;

    /// Leaves the group at once, so that the other members need not wait for a timeout. Commit everything
    /// before.
    async fn close(&self);

    /// Whether the log answers.
    fn health(&self) -> Health;
}
