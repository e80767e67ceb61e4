//! Observers: callbacks for rebalances, commits and deliveries.

use crate::error::Error;
use crate::health::Health;
use crate::panic::message;
use crate::producer::{OnDelivery, ProduceError, Producer};
use crate::record::{Position, ProducerRecord, TopicPartition};
use async_trait::async_trait;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Callbacks for rebalances, commits and deliveries. The default methods do nothing. Implementations must be quick and must not
/// block, because partitions and other records wait for them. Their panics are caught and logged.
pub trait Observer: Send + Sync + 'static {
    /// `consumer` now handles these partitions.
    fn assigned(&self, consumer: &str, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// These partitions are about to go to another member, or the consumer is shutting down. Its records in flight are finished
    /// and committed, unless that exceeded the time limits.
    fn revoked(&self, consumer: &str, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// These partitions already belong to another member. Their records are no longer handled or committed here.
    fn lost(&self, consumer: &str, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// A commit has ended. Each offset is the next one to be read of its partition. A failed commit is retried.
    fn committed(&self, consumer: &str, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        let _ = (consumer, offsets, result);
    }

    /// The delivery result of a record that an [`observed`] producer accepted.
    fn delivered(&self, topic: &str, key: &[u8], result: &Result<Position, ProduceError>) {
        let _ = (topic, key, result);
    }
}

/// Does nothing.
impl Observer for () {}

/// Logs every callback: successes at level info, losses and failures as warnings. Keys are left out, because they may be secrets.
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

/// Catches the panics of an observer, so that foreign code can't end a consumer or producer.
pub(crate) struct PanicSafeObserver(pub(crate) Arc<dyn Observer>);

impl PanicSafeObserver {
    fn notify(&self, callback: impl FnOnce(&dyn Observer)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| callback(&*self.0))) {
            tracing::error!(panic = message(&*panic), "an observer panicked");
        }
    }
}

impl Observer for PanicSafeObserver {
    fn assigned(&self, consumer: &str, partitions: &[TopicPartition]) {
        self.notify(|observer| observer.assigned(consumer, partitions));
    }

    fn revoked(&self, consumer: &str, partitions: &[TopicPartition]) {
        self.notify(|observer| observer.revoked(consumer, partitions));
    }

    fn lost(&self, consumer: &str, partitions: &[TopicPartition]) {
        self.notify(|observer| observer.lost(consumer, partitions));
    }

    fn committed(&self, consumer: &str, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        self.notify(|observer| observer.committed(consumer, offsets, result));
    }

    fn delivered(&self, topic: &str, key: &[u8], result: &Result<Position, ProduceError>) {
        self.notify(|observer| observer.delivered(topic, key, result));
    }
}

/// Wraps a producer so that `observer` gets each delivery result before the callback of the record. A record that the producer
/// does not accept has no delivery result.
pub fn observed(producer: Arc<dyn Producer>, observer: Arc<dyn Observer>) -> Arc<dyn Producer> {
    Arc::new(Observed { producer, observer: Arc::new(PanicSafeObserver(observer)) })
}

struct Observed {
    producer: Arc<dyn Producer>,
    observer: Arc<PanicSafeObserver>,
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
