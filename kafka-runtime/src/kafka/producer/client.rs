//! One client of librdkafka, and what it calls back.

use super::Shared;
use super::ages::{Age, Ages};
use super::lanes::{Lane, Lanes, Refused, Sink, Taken};
use super::partitions::Partitions;
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

/// A client, and the records that it was not given yet.
pub(super) struct Client {
    pub(super) producer: ThreadedProducer<Context, Partitions>,
    pub(super) lanes: Lanes<Waiting>,
}

/// A record that its client was not given yet.
pub(super) struct Waiting {
    pub(super) record: ProducerRecord,
    pub(super) delivery: Delivery,
    age: Age,
}

/// A record that its client was given.
pub(super) struct Held {
    delivery: Delivery,
    age: Age,
    bytes: u64,
    lane: Arc<Lane<Waiting>>,
}

pub(super) struct Context {
    /// Weak, because it holds the client that holds this.
    shared: Weak<Shared>,
    supervisor: SyncSender<Signal>,
    partitions: Partitions,
    pub(super) ages: Ages,
    fatal: AtomicBool,
    /// It holds a record for longer than it may.
    pub(super) expired: AtomicBool,
}

impl Client {
    /// Puts a record behind the others of its partition, and tells whether it begins to linger.
    pub(super) fn push(&self, record: ProducerRecord, delivery: Delivery) -> (bool, Refused<Waiting>) {
        let context = self.producer.context();
        let (topic, key) = (Arc::clone(&record.topic), record.key.clone());
        let waiting = Waiting { record, delivery, age: context.ages.begin() };
        self.lanes.push((&topic, &key, context.partitions.count(&topic)), waiting, self)
    }
}

impl Sink<Waiting> for Client {
    fn take(&self, waiting: Waiting, lane: &Arc<Lane<Waiting>>) -> Taken<Waiting> {
        let Waiting { record, delivery, age } = waiting;
        let held = Held { delivery, age, bytes: record.size() as u64, lane: Arc::clone(lane) };
        let mut message = BaseRecord::with_opaque_to(&record.topic, Box::new(held))
            .key(&record.key[..])
            .payload(&record.payload[..]);
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            message = message.headers(record.headers.iter().fold(headers, |headers, (key, value)| {
                headers.insert(Header { key, value: Some(&value[..]) })
            }));
        }
        let Err((error, message)) = self.producer.send(message) else { return Taken::Yes };
        let delivery = message.delivery_opaque.delivery;
        let waiting = Waiting { record, delivery, age };
        let context = self.producer.context();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            context.fatal();
        }
        let error = errors::produce_error(&error);
        if error.is_retryable() {
            // What is behind it must not be written before it: all wait, and are given up together if need be.
            context.failing(&error);
            return Taken::Later(waiting);
        }
        context.ages.end(age);
        Taken::Never(waiting, error)
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
            // Full means that a signal is there already.
            drop(self.supervisor.try_send(Signal::Fatal));
        }
    }

    fn failing(&self, error: &ProduceError) {
        if let Some(shared) = self.shared.upgrade() {
            shared.health.failing_unless_known(&error.to_string());
        }
    }

    /// Why this client gives its records up.
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
            errors::note(&shared.health, &error, reason);
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fatal();
        }
    }
}

impl ProducerContext<Partitions> for Context {
    type DeliveryOpaque = Box<Held>;

    fn delivery(&self, result: &DeliveryResult<'_>, held: Box<Held>) {
        let Held { delivery, age, bytes, lane } = *held;
        self.ages.end(age);
        // Without it the producer has gone, and dropping the delivery tells so.
        let Some(shared) = self.shared.upgrade() else { return };
        let outcome = self.outcome(&shared, result);
        if outcome.is_ok() {
            shared.health.ready();
        }
        shared.answer(delivery, bytes, outcome);
        shared.go_on(&lane);
    }

    fn get_custom_partitioner(&self) -> Option<&Partitions> {
        Some(&self.partitions)
    }
}
