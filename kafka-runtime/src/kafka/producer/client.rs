//! One client of librdkafka and its callbacks.

use super::Shared;
use super::ages::{Age, Ages};
use super::partitions::Partitions;
use super::queues::{PartitionQueue, PartitionQueues, Rejected, SendOutcome, Sink};
use super::supervisor::Signal;
use crate::kafka::errors;
use crate::producer::{Delivery, ProduceError};
use crate::record::{Position, ProducerRecord};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};

/// A client, and the records that it has not been given.
pub(super) struct Client {
    pub(super) producer: ThreadedProducer<Context, Partitions>,
    pub(super) queues: PartitionQueues<QueuedRecord>,
}

/// A record that the client has not been given.
pub(super) struct QueuedRecord {
    pub(super) record: ProducerRecord,
    pub(super) delivery: Delivery,
    age: Age,
}

/// A record that the client has been given.
pub(super) struct SentRecord {
    delivery: Delivery,
    age: Age,
    bytes: u64,
    queue: Arc<PartitionQueue<QueuedRecord>>,
}

pub(super) struct Context {
    /// Weak, because `Shared` holds the client that holds this context.
    shared: Weak<Shared>,
    supervisor: SyncSender<Signal>,
    partitions: Partitions,
    pub(super) ages: Ages,
    fatal: AtomicBool,
    /// The client has held a record past its timeout.
    pub(super) expired: AtomicBool,
}

impl Client {
    /// Appends a record to the queue of its partition. Returns whether the queue starts to linger.
    pub(super) fn push(&self, record: ProducerRecord, delivery: Delivery) -> (bool, Rejected<QueuedRecord>) {
        let context = self.producer.context();
        let (topic, key) = (Arc::clone(&record.topic), record.key.clone());
        let queued = QueuedRecord { record, delivery, age: context.ages.begin() };
        self.queues.push((&topic, &key, context.partitions.count(&topic)), queued, self)
    }
}

impl Sink<QueuedRecord> for Client {
    fn send(
        &self,
        queued: QueuedRecord,
        queue: &Arc<PartitionQueue<QueuedRecord>>,
    ) -> SendOutcome<QueuedRecord> {
        let QueuedRecord { record, delivery, age } = queued;
        let sent = SentRecord { delivery, age, bytes: record.size() as u64, queue: Arc::clone(queue) };
        let mut message = BaseRecord::with_opaque_to(&record.topic, Box::new(sent))
            .key(&record.key[..])
            .payload(&record.payload[..]);
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            message = message.headers(record.headers.iter().fold(headers, |headers, (key, value)| {
                headers.insert(Header { key, value: Some(&value[..]) })
            }));
        }
        let Err((error, message)) = self.producer.send(message) else { return SendOutcome::Sent };
        let delivery = message.delivery_opaque.delivery;
        let queued = QueuedRecord { record, delivery, age };
        let context = self.producer.context();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            context.fatal();
        }
        let error = errors::produce_error(&error);
        if error.is_retryable() {
            // The records behind it must not be written first. All of them wait, and fail together if
            // necessary.
            context.failing(&error);
            return SendOutcome::Retry(queued);
        }
        context.ages.end(age);
        SendOutcome::Rejected(queued, error)
    }
}

impl Context {
    pub(super) fn new(shared: Weak<Shared>, supervisor: SyncSender<Signal>) -> Self {
        Self {
            shared,
            supervisor,
            partitions: Partitions::default(),
            ages: Ages::default(),
            fatal: AtomicBool::new(false),
            expired: AtomicBool::new(false),
        }
    }

    fn fatal(&self) {
        if !self.fatal.swap(true, Ordering::SeqCst) {
            // If the channel is full, a signal is pending already.
            drop(self.supervisor.try_send(Signal::Fatal));
        }
    }

    fn failing(&self, error: &ProduceError) {
        if let Some(shared) = self.shared.upgrade() {
            shared.health.failing_unless_known(&error.to_string());
        }
    }

    /// The error with which the records of this client fail.
    pub(super) fn reason(&self, shared: &Shared) -> ProduceError {
        if shared.closing.load(Ordering::SeqCst) {
            ProduceError::Closed
        } else if self.expired.load(Ordering::SeqCst) {
            ProduceError::TimedOut
        } else {
            ProduceError::Unavailable { reason: "the client was replaced".into() }
        }
    }

    fn outcome(&self, shared: &Shared, result: &DeliveryResult<'_>) -> Result<Position, ProduceError> {
        match result {
            Ok(message) => Ok(Position { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => self.reason(shared),
                _ => errors::produce_error(error),
            }),
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        errors::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(shared) = self.shared.upgrade() {
            errors::update_health(&shared.health, &error, reason);
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fatal();
        }
    }
}

impl ProducerContext<Partitions> for Context {
    type DeliveryOpaque = Box<SentRecord>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<SentRecord>) {
        let SentRecord { delivery, age, bytes, queue } = *sent;
        self.ages.end(age);
        // Without `shared` the producer was dropped, and dropping the delivery answers `Closed`.
        let Some(shared) = self.shared.upgrade() else { return };
        let outcome = self.outcome(&shared, result);
        if outcome.is_ok() {
            shared.health.ready();
        }
        shared.answer(delivery, bytes, outcome);
        shared.continue_queue(&queue);
    }

    fn get_custom_partitioner(&self) -> Option<&Partitions> {
        Some(&self.partitions)
    }
}
