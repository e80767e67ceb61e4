//! The seam for writing: records go in without waiting, the answer comes by callback.

mod delivery;
mod in_flight;

pub(crate) use delivery::Delivery;
pub(crate) use in_flight::InFlight;

use crate::health::Health;
use crate::record::{Position, ProducerRecord};
use async_trait::async_trait;
use std::time::Duration;
use tokio::sync::oneshot;

/// Called exactly once with the outcome of a record that was enqueued, on the thread that learns it: it must be quick and
/// must not block. It is called as well when the producer goes away.
pub type OnDelivery = Box<dyn FnOnce(Result<Position, ProduceError>) + Send>;

/// After a record was given up nothing is taken for so long, so that whoever sent it hears of that before something newer is
/// written: longer than a thread waits for its turn.
pub(crate) const NOTICE: Duration = Duration::from_millis(100);

/// Why a record was not confirmed. After [`TimedOut`](Self::TimedOut), [`Unavailable`](Self::Unavailable) and
/// [`Closed`](Self::Closed) it may be in the log all the same when the log is Kafka.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// As many records are waiting as may.
    #[error("the queue to the log is full")]
    QueueFull,
    /// The log did not take it in time, or one that was to be written before it.
    #[error("the log did not take the record in time")]
    TimedOut,
    /// It is larger than a record may be.
    #[error("the record is too large")]
    TooLarge,
    /// The log cannot take records now: brokers are away, the disk is full.
    #[error("the log is unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The log will never take this record: no such topic, not allowed.
    #[error("the log refused the record: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The producer was closed before the record was confirmed.
    #[error("the producer is closed")]
    Closed,
}

impl ProduceError {
    /// Whether trying again, later or elsewhere, can help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::QueueFull | Self::TimedOut | Self::Unavailable { .. } | Self::Closed => true,
            Self::TooLarge | Self::Refused { .. } => false,
        }
    }

    /// A short name for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TimedOut => "timed_out",
            Self::TooLarge => "too_large",
            Self::Unavailable { .. } => "unavailable",
            Self::Refused { .. } => "refused",
            Self::Closed => "closed",
        }
    }
}

/// Writes records to a log.
#[async_trait]
pub trait Producer: Send + Sync + 'static {
    /// Takes a record without waiting. When this returns `Ok`, `on_delivery` is called exactly once, `Ok` there meaning
    /// that the log has the record durably; when it returns an error, `on_delivery` is dropped uncalled.
    ///
    /// Records of one key are written in the order of the calls. When one is given up that was taken, so is all that is taken
    /// behind it until its callback was called: a sender that hears of it and sends both again keeps the order.
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError>;

    /// Waits until nothing is in flight, or fails with [`ProduceError::TimedOut`] after `deadline`.
    async fn flush(&self, deadline: Duration) -> Result<(), ProduceError>;

    /// Whether the log answers.
    fn health(&self) -> Health;

    /// Whether [`health`](Self::health) is [`Health::Ready`].
    fn ready(&self) -> bool {
        self.health() == Health::Ready
    }

    /// Enqueues a record and waits for its outcome.
    async fn send(&self, record: ProducerRecord) -> Result<Position, ProduceError> {
        let (outcome, delivered) = oneshot::channel();
        // The receiver may have stopped waiting; the record is in flight all the same.
        self.enqueue(record, Box::new(move |result| drop(outcome.send(result))))?;
        delivered.await.unwrap_or(Err(ProduceError::Closed))
    }
}
