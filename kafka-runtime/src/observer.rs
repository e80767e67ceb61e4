//! Told of what happens, for those who want to know.

use crate::error::Error;
use crate::health::Health;
use crate::panic::words;
use crate::producer::{OnDelivery, ProduceError, Producer};
use crate::record::{Position, ProducerRecord, TopicPartition};
use async_trait::async_trait;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Hears what becomes of partitions, offsets and records. Methods that are not implemented do nothing. They must be quick and
/// must not block: partitions and other records wait for them. Their panics are caught and go to the log.
pub trait Observer: Send + Sync + 'static {
    /// These partitions are handled by `consumer` from now on.
    fn assigned(&self, consumer: &str, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// These go to somebody else in a moment, or the consumer ends: what was in flight is finished, and what is done was committed, if that could
    /// be in time.
    fn revoked(&self, consumer: &str, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// These belong to somebody else already; nothing of them is handled or committed any more.
    fn lost(&self, consumer: &str, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// A commit has ended. Each offset is the next one to be read of its partition. What failed is tried again later.
    fn committed(&self, consumer: &str, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        let _ = (consumer, offsets, result);
    }

    /// A record that an [`observed`] producer took was written, or was not.
    fn delivered(&self, topic: &str, key: &[u8], result: &Result<Position, ProduceError>) {
        let _ = (topic, key, result);
    }
}

/// Observes nothing.
impl Observer for () {}

/// Writes all that it hears to the log: what went well at level info, the rest as warnings. No keys: they may be secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogObserver;

impl Observer for LogObserver {
    fn assigned(&self, consumer: &str, partitions: &[TopicPartition]) {
        tracing::info!(consumer, partitions = %List(partitions), "assigned");
    }

    fn revoked(&self, consumer: &str, partitions: &[TopicPartition]) {
        tracing::info!(consumer, partitions = %List(partitions), "revoked");
    }

    fn lost(&self, consumer: &str, partitions: &[TopicPartition]) {
        tracing::warn!(consumer, partitions = %List(partitions), "lost");
    }

    fn committed(&self, consumer: &str, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        let offsets = Offsets(offsets);
        match result {
            Ok(()) => tracing::info!(consumer, %offsets, "committed"),
            Err(error) => {
                tracing::warn!(consumer, %offsets, error = error as &dyn std::error::Error, "not committed");
            }
        }
    }

    fn delivered(&self, topic: &str, _: &[u8], result: &Result<Position, ProduceError>) {
        match result {
            Ok(Position { partition, offset }) => tracing::info!(topic, partition, offset, "delivered"),
            Err(error) => tracing::warn!(topic, %error, "not delivered"),
        }
    }
}

/// An observer whose panics are caught: it is somebody else's code, and nothing may depend on it.
pub(crate) struct Guarded(pub(crate) Arc<dyn Observer>);

impl Guarded {
    fn tell(&self, what: impl FnOnce(&dyn Observer)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| what(&*self.0))) {
            tracing::error!(panic = words(&*panic), "an observer panicked");
        }
    }
}

impl Observer for Guarded {
    fn assigned(&self, consumer: &str, partitions: &[TopicPartition]) {
        self.tell(|observer| observer.assigned(consumer, partitions));
    }

    fn revoked(&self, consumer: &str, partitions: &[TopicPartition]) {
        self.tell(|observer| observer.revoked(consumer, partitions));
    }

    fn lost(&self, consumer: &str, partitions: &[TopicPartition]) {
        self.tell(|observer| observer.lost(consumer, partitions));
    }

    fn committed(&self, consumer: &str, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        self.tell(|observer| observer.committed(consumer, offsets, result));
    }

    fn delivered(&self, topic: &str, key: &[u8], result: &Result<Position, ProduceError>) {
        self.tell(|observer| observer.delivered(topic, key, result));
    }
}

/// The producer, whose delivery reports `observer` hears before the callback of each record does. A record that the producer
/// refuses to take has no report.
pub fn observed(producer: Arc<dyn Producer>, observer: Arc<dyn Observer>) -> Arc<dyn Producer> {
    Arc::new(Observed { producer, observer: Arc::new(Guarded(observer)) })
}

struct Observed {
    producer: Arc<dyn Producer>,
    observer: Arc<Guarded>,
}

#[async_trait]
impl Producer for Observed {
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError> {
        let (topic, key) = (Arc::clone(&record.topic), record.key.clone());
        let observer = Arc::clone(&self.observer);
        let on_delivery = move |result| {
            observer.delivered(&topic, &key, &result);
            on_delivery(result);
        };
        self.producer.enqueue(record, Box::new(on_delivery))
    }

    async fn flush(&self, deadline: Duration) -> Result<(), ProduceError> {
        self.producer.flush(deadline).await
    }

    fn health(&self) -> Health {
        self.producer.health()
    }
}

struct List<'a>(&'a [TopicPartition]);

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, partition) in self.0.iter().enumerate() {
            write!(f, "{}{partition}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

struct Offsets<'a>(&'a [(TopicPartition, i64)]);

impl std::fmt::Display for Offsets<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (partition, next)) in self.0.iter().enumerate() {
            write!(f, "{}{partition}={next}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}
