//! The seam for reading: who owns which partition, and the records of each.

mod queue;

pub use queue::{Queue, QueueLimits};

use crate::error::Error;
use crate::health::Health;
use crate::record::{ProducerRecord, TopicPartition};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

/// A partition that was assigned, and the queue that its records come through.
#[derive(Clone, Debug)]
pub struct AssignedPartition {
    /// Which partition.
    pub partition: TopicPartition,
    /// Its records from the committed offset on. Closed when the partition goes.
    pub queue: Arc<Queue>,
}

/// Something that a [`Source`] tells.
#[derive(Debug)]
pub enum Event {
    /// These partitions are read from now on.
    Assigned(Vec<AssignedPartition>),
    /// These go to somebody else. The source waits (up to a deadline of its own) until `release` is dropped: until then
    /// what is in flight may be finished and committed.
    Revoked {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Dropped when all is finished.
        release: Release,
    },
    /// These belong to somebody else already: nothing of them may be finished or committed.
    Lost(Vec<TopicPartition>),
}

/// Lets a revocation go on when it is dropped.
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

/// Where a group begins in a partition that it has committed no offset of. It is committed as soon as it is known, so that a
/// restart before the first record does not choose again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitialOffset {
    /// With the first record that is kept.
    #[default]
    Earliest,
    /// With the first record that comes after now.
    Latest,
    /// With the first record that is not older than this.
    Time {
        /// Milliseconds since 1970, UTC.
        ms: i64,
    },
}

/// The next offset to be read of each partition: one past the last record that is done.
pub type Offsets = Vec<(TopicPartition, i64)>;

/// Reads partitions of a log as one member of a consumer group.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Begins to read. Called once, before anything else.
    async fn start(&self) -> Result<(), Error>;

    /// The next event. May be dropped while waiting without losing one. An error means that this source is finished.
    async fn next(&self) -> Result<Event, Error>;

    /// Makes the group go on from these offsets after a restart. Returns when that is durable.
    async fn commit(&self, offsets: Offsets) -> Result<(), Error>;

    /// Writes `outputs`, and makes the group go on from `next` in a partition: both or neither, whatever crashes. Returns when
    /// that is durable. After an error neither has happened, or both have and a further call with the same `next`, or with
    /// an earlier one, only says so.
    ///
    /// # Errors
    /// [`Error::Output`]: an output can't be written. [`Error::Closed`]: the partition was given away meanwhile, or the log
    /// is closed. All others are worth another try.
    ///
    /// The future does not hold the source: one that is dropped leaves its group, whoever still waits here.
    fn transact(
        &self,
        from: &AssignedPartition,
        next: i64,
        outputs: Vec<ProducerRecord>,
    ) -> BoxFuture<'static, Result<(), Error>>;

    /// Leaves the group at once, so that others need not wait for a timeout. Everything should be committed by then.
    async fn close(&self);

    /// Whether the log answers.
    fn health(&self) -> Health;
}
