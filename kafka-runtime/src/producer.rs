//! The interface for writing: records are enqueued without waiting, and a callback gets the result.

mod delivery;
mod in_flight;

pub(crate) use delivery::Delivery;
pub(crate) use in_flight::InFlight;

use crate::health::Health;
use crate::record::{Position, ProducerRecord};
use async_trait::async_trait;
use std::time::Duration;
use tokio::sync::oneshot;

/// Called exactly once with the result of an enqueued record, also if the producer is dropped. It runs on an internal thread, so
/// it must be quick and must not block.
pub type OnDelivery = Box<dyn FnOnce(Result<Position, ProduceError>) + Send>;

/// Pause after a failed record before newer ones are accepted. Its sender learns of the failure first, and can keep the order of
/// its records. The pause is longer than a thread usually waits for the scheduler.
pub(crate) const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Why a record was not confirmed. With Kafka, the record may still be in the log after [`TimedOut`](Self::TimedOut),
/// [`Unavailable`](Self::Unavailable) and [`Closed`](Self::Closed).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The queue has reached its limit of records or bytes.
    #[error("the queue to the log is full")]
    QueueFull,
    /// The log did not confirm the record, or an earlier one in the same queue, in time.
    #[error("the log did not confirm the record in time")]
    TimedOut,
    /// The record exceeds the size limit.
    #[error("the record is too large")]
    TooLarge,
    /// The log can't accept records now: brokers are unavailable, or the disk is full.
    #[error("the log is unavailable: {reason}")]
    Unavailable {
        /// The cause.
        reason: String,
    },
    /// The log will never accept this record: the topic does not exist, or the client is not authorized.
    #[error("the log refused the record: {reason}")]
    Refused {
        /// The cause.
        reason: String,
    },
    /// The producer was closed before the record was confirmed.
    #[error("the producer is closed")]
    Closed,
}

impl ProduceError {
    /// Whether a retry, later or elsewhere, may succeed.
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
    /// Enqueues a record without waiting. If this returns `Ok`, `on_delivery` is called exactly once; `Ok` there means that the
    /// record is durable. If this returns an error, `on_delivery` is dropped without a call.
    ///
    /// Records of one key are written in the order of the calls. If an enqueued record fails, all records that are enqueued after
    /// it and before its callback fail too. A sender that retries all of them in order keeps the order.
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError>;

    /// Waits until no record is in flight, or fails with [`ProduceError::TimedOut`] after `deadline`.
    async fn flush(&self, deadline: Duration) -> Result<(), ProduceError>;

    /// Whether the log answers.
    fn health(&self) -> Health;

    /// Whether [`health`](Self::health) is [`Health::Ready`].
    fn ready(&self) -> bool {
        self.health() == Health::Ready
    }

    /// Enqueues a record and waits for its result.
    async fn send(&self, record: ProducerRecord) -> Result<Position, ProduceError> {
        let (sender, delivered) = oneshot::channel();
        // Sending fails if the caller no longer waits. The record is still in flight then.
        self.enqueue(record, Box::new(move |result| drop(sender.send(result))))?;
        delivered.await.unwrap_or(Err(ProduceError::Closed))
    }
}
