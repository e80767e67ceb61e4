//! The producer: idempotent, acks from all in-sync replicas, one callback per record.
//!
//! A supervisor thread owns the life of the client: it asks the brokers whether they are there for as long as that is not
//! known, and replaces a client that has failed for good (an idempotent producer that was fenced, say) or that holds a record
//! for longer than it may. It also drops clients, which must not happen on the thread that calls callbacks.
//!
//! The client itself gives no record up: it would go on to write what was enqueued behind it, and the retry of the first would
//! come too late. So all that a client holds is given up together, and nothing new is taken until that was told.

mod ages;

use super::config::{KafkaConfig, KafkaProducerConfig};
use super::errors;
use crate::error::Error;
use crate::health::{Health, HealthCell};
use crate::metrics::Produced;
use crate::producer::{Delivery, InFlight, NOTICE, OnDelivery, ProduceError, Producer};
use crate::record::{Position, ProducerRecord};
use ages::{Age, Ages};
use async_trait::async_trait;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

const PROBE_EVERY: Duration = Duration::from_millis(500);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// So long a client may take to answer what it is made to give up.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);

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
    ages: Ages,
    fatal: AtomicBool,
    /// It holds a record for longer than it may.
    expired: AtomicBool,
}

/// A record that a client holds.
struct Held {
    delivery: Delivery,
    age: Age,
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
                    } else if self.expired.load(Ordering::SeqCst) {
                        ProduceError::TimedOut
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
    type DeliveryOpaque = Box<Held>;

    fn delivery(&self, result: &DeliveryResult<'_>, held: Box<Held>) {
        let Held { delivery, age } = *held;
        self.ages.end(age);
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
            timeout: config.timeout,
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

    fn send(&self, record: &ProducerRecord, delivery: Delivery) -> Result<(), ProduceError> {
        let client = self.client.read().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = &*client else {
            delivery.forget();
            return Err(ProduceError::Unavailable { reason: "the client is being replaced".into() });
        };
        let ages = &client.context().ages;
        let age = ages.begin();
        let mut message = BaseRecord::with_opaque_to(&record.topic, Box::new(Held { delivery, age }))
            .key(&record.key[..])
            .payload(&record.payload[..]);
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            message = message.headers(record.headers.iter().fold(headers, |headers, (key, value)| {
                headers.insert(Header { key, value: Some(&value[..]) })
            }));
        }
        client.send(message).map_err(|(error, message)| {
            ages.end(age);
            message.delivery_opaque.delivery.forget();
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
        self.shared.send(&record, Delivery::new(on_delivery)).inspect_err(|error| {
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
    /// A record may be held for so long.
    timeout: Duration,
    supervisor: SyncSender<Signal>,
}

impl Supervisor {
    fn client(&self) -> Result<ThreadedProducer<Context>, KafkaError> {
        let context = Context {
            status: Arc::clone(&self.shared.status),
            health: Arc::clone(&self.shared.health),
            supervisor: self.supervisor.clone(),
            ages: Ages::default(),
            fatal: AtomicBool::new(false),
            expired: AtomicBool::new(false),
        };
        ThreadedProducer::from_config_and_context(&self.config, context)
    }

    fn run(self, signals: &mpsc::Receiver<Signal>) {
        let older_every = Ages::step(self.timeout);
        let (mut older_at, mut probe_at) = (Instant::now() + older_every, Instant::now() + PROBE_EVERY);
        while !self.shared.status.closing.load(Ordering::SeqCst) {
            let wait = older_at.min(probe_at).saturating_duration_since(Instant::now());
            match signals.recv_timeout(wait) {
                Ok(Signal::Fatal) => self.renew(),
                Ok(Signal::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if older_at <= Instant::now() {
                self.grow_older();
                older_at = Instant::now() + older_every;
            }
            if probe_at <= Instant::now() {
                self.look_after();
                probe_at = Instant::now() + PROBE_EVERY;
            }
        }
        // Purges what waits, and so answers it.
        drop(self.shared.replace(None));
    }

    fn grow_older(&self) {
        let is_too_old = |client: &ThreadedProducer<Context>| {
            let context = client.context();
            let is_too_old = context.ages.grow_older().is_err();
            context.expired.store(is_too_old, Ordering::SeqCst);
            is_too_old
        };
        let expired = self
            .shared
            .client
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .is_some_and(is_too_old);
        if expired {
            tracing::error!(timeout = ?self.timeout, "kafka did not take a record in time, giving up all that wait");
            self.renew();
        }
    }

    /// Replaces the client. What the old one holds is answered before the new one takes anything.
    #[expect(clippy::disallowed_methods, reason = "this thread waits for nothing else")]
    fn renew(&self) {
        tracing::warn!("making a new kafka producer");
        // Made first: it connects meanwhile.
        let new = self.client().inspect_err(|error| {
            tracing::error!(%error, "cannot make a kafka producer, trying again");
        });
        let old = self.shared.replace(None);
        if let Some(old) = &old {
            old.purge(PurgeConfig::default().queue().inflight());
            if let Err(error) = old.flush(PURGE_TIMEOUT) {
                tracing::error!(%error, "the old kafka producer does not give all of its records up");
            }
            thread::sleep(NOTICE);
        }
        self.shared.replace(new.ok());
        // Ends its connections, for which nobody has to wait.
        drop(old);
    }

    fn look_after(&self) {
        let client = self.shared.client.read().unwrap_or_else(PoisonError::into_inner);
        let Some(client) = &*client else {
            drop(client);
            return self.renew();
        };
        // While all is well, confirmed records are proof enough; when they stop, errors say so. What waits tells by itself, and must
        // not grow old unseen while this waits.
        let asks = !self.shared.health.is_ready() && client.in_flight_count() == 0;
        if asks && client.client().fetch_metadata(None, PROBE_TIMEOUT).is_ok() {
            self.shared.health.ready();
        }
    }
}

#[cfg(test)]
mod tests;
