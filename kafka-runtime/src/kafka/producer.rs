//! The producer: idempotent, acks from all in-sync replicas, one callback per record.
//!
//! A supervisor thread owns the life of the client: it asks the brokers whether they are there for as long as that is not
//! known, and replaces a client that has failed for good (an idempotent producer that was fenced, say). It also drops
//! clients, which must not happen on the thread that calls callbacks.

use super::config::{KafkaConfig, KafkaProducerConfig};
use super::errors;
use crate::error::Error;
use crate::health::{Health, HealthCell};
use crate::metrics::Produced;
use crate::producer::{Delivery, InFlight, OnDelivery, ProduceError, Producer};
use crate::record::{Position, ProducerRecord};
use async_trait::async_trait;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

const PROBE_EVERY: Duration = Duration::from_millis(500);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Writes records to Kafka. Dropping it answers what is in flight with [`ProduceError::Closed`];
/// [`flush`](Producer::flush) first.
pub struct KafkaProducer {
    shared: Arc<Shared>,
    supervisor: SyncSender<Signal>,
}

impl std::fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaProducer").field("health", &self.shared.health.get()).finish_non_exhaustive()
    }
}

struct Shared {
    /// `None` between a failed client and the next, and at the end.
    client: RwLock<Option<ThreadedProducer<Context>>>,
    status: Arc<Status>,
    health: Arc<HealthCell>,
}

/// What outlives each client.
struct Status {
    in_flight: InFlight,
    produced: Produced,
    /// Why records are purged: the producer ends, or only its client.
    closing: AtomicBool,
}

enum Signal {
    /// The client has failed for good.
    Fatal,
    Close,
}

struct Context {
    status: Arc<Status>,
    health: Arc<HealthCell>,
    supervisor: SyncSender<Signal>,
    fatal: AtomicBool,
}

impl Context {
    fn fatal(&self) {
        if !self.fatal.swap(true, Ordering::SeqCst) {
            // Full means that a signal is there already.
            drop(self.supervisor.try_send(Signal::Fatal));
        }
    }

    fn outcome(&self, result: &DeliveryResult<'_>) -> Result<Position, ProduceError> {
        match result {
            Ok(message) => Ok(Position { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => {
                    if self.status.closing.load(Ordering::SeqCst) {
                        ProduceError::Closed
                    } else {
                        ProduceError::Unavailable { reason: "the client was replaced".into() }
                    }
                }
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
        errors::note(&self.health, &error, reason);
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fatal();
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let outcome = self.outcome(result);
        if outcome.is_ok() {
            self.health.ready();
        }
        self.status.produced.outcome(&outcome);
        delivery.answer(outcome);
        self.status.in_flight.end(1);
    }
}

impl KafkaProducer {
    /// A producer that connects in the background. Fails only if a setting is wrong.
    pub fn new(kafka: &KafkaConfig, config: KafkaProducerConfig) -> Result<Self, Error> {
        let (supervisor, signals) = mpsc::sync_channel(4);
        let status = Arc::new(Status {
            in_flight: InFlight::default(),
            produced: Produced::new(),
            closing: AtomicBool::new(false),
        });
        let health = Arc::new(HealthCell::new(Health::Starting));
        let shared = Arc::new(Shared { client: RwLock::new(None), status, health });
        let supervisor_of = Supervisor {
            shared: Arc::clone(&shared),
            config: config.client(kafka),
            supervisor: supervisor.clone(),
        };
        let client = supervisor_of.client().map_err(Error::Client)?;
        shared.replace(Some(client));
        let name = "kafka-producer";
        let thread = thread::Builder::new().name(name.into()).spawn(move || supervisor_of.run(&signals));
        thread.map_err(|source| Error::Thread { name, source })?;
        Ok(Self { shared, supervisor })
    }
}

impl Shared {
    fn replace(&self, client: Option<ThreadedProducer<Context>>) -> Option<ThreadedProducer<Context>> {
        std::mem::replace(&mut *self.client.write().unwrap_or_else(PoisonError::into_inner), client)
    }

    fn send(&self, record: &ProducerRecord, delivery: Box<Delivery>) -> Result<(), ProduceError> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = &*client else {
            delivery.forget();
            return Err(ProduceError::Unavailable { reason: "the client is being replaced".into() });
        };
        let mut message = BaseRecord::with_opaque_to(&record.topic, delivery)
            .key(&record.key[..])
            .payload(&record.payload[..]);
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            message = message.headers(record.headers.iter().fold(headers, |headers, (key, value)| {
                headers.insert(Header { key, value: Some(&value[..]) })
            }));
        }
        client.send(message).map_err(|(error, message)| {
            message.delivery_opaque.forget();
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                client.context().fatal();
            }
            errors::produce_error(&error)
        })
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError> {
        let status = &self.shared.status;
        status.in_flight.begin(1);
        self.shared.send(&record, Box::new(Delivery::new(on_delivery))).inspect_err(|error| {
            status.in_flight.end(1);
            status.produced.failed(error);
        })
    }

    async fn flush(&self, deadline: Duration) -> Result<(), ProduceError> {
        self.shared.status.in_flight.wait_idle(deadline).await
    }

    fn health(&self) -> Health {
        self.shared.health.get()
    }

    fn ready(&self) -> bool {
        self.shared.health.is_ready()
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.shared.status.closing.store(true, Ordering::SeqCst);
        // Not waited for: this may run on the thread that the supervisor has to join.
        drop(self.supervisor.try_send(Signal::Close));
    }
}

struct Supervisor {
    shared: Arc<Shared>,
    config: ClientConfig,
    supervisor: SyncSender<Signal>,
}

impl Supervisor {
    fn client(&self) -> Result<ThreadedProducer<Context>, KafkaError> {
        let context = Context {
            status: Arc::clone(&self.shared.status),
            health: Arc::clone(&self.shared.health),
            supervisor: self.supervisor.clone(),
            fatal: AtomicBool::new(false),
        };
        ThreadedProducer::from_config_and_context(&self.config, context)
    }

    fn run(self, signals: &mpsc::Receiver<Signal>) {
        while !self.shared.status.closing.load(Ordering::SeqCst) {
            match signals.recv_timeout(PROBE_EVERY) {
                Ok(Signal::Fatal) => self.renew(),
                Ok(Signal::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.look_after(),
            }
        }
        // Purges what waits, and so answers it.
        drop(self.shared.replace(None));
    }

    fn renew(&self) {
        tracing::error!("the kafka producer failed for good, making a new one");
        // The old one answers what it had in flight as it is dropped, after the new one is in place.
        let old = match self.client() {
            Ok(client) => self.shared.replace(Some(client)),
            Err(error) => {
                tracing::error!(%error, "cannot make a kafka producer, trying again");
                self.shared.replace(None)
            }
        };
        drop(old);
    }

    fn look_after(&self) {
        let client = self.shared.client.read().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = &*client else {
            drop(client);
            return self.renew();
        };
        // While all is well, confirmed records are proof enough; when they stop, errors say so.
        if !self.shared.health.is_ready() && client.client().fetch_metadata(None, PROBE_TIMEOUT).is_ok() {
            self.shared.health.ready();
        }
    }
}

#[cfg(test)]
mod tests;
