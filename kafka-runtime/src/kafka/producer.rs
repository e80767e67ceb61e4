//! The producer: idempotent, acks from all in-sync replicas, one callback per record.
//!
//! A supervisor thread owns the life of the client: it asks the brokers whether they are there for as long as that is not
//! known, and replaces a client that has failed for good (an idempotent producer that was fenced, say) or that holds a record
//! for longer than it may. It also drops clients, which must not happen on the thread that calls callbacks.
//!
//! The client itself gives no record up: it would go on to write what was enqueued behind it, and the retry of the first would
//! come too late. So all that a client holds is given up together, and nothing new is taken until that was told.
//!
//! What waits for its turn waits in [`lanes`], from which a client is given one batch per partition at a time.

mod ages;
mod client;
mod lanes;
mod partitions;
mod supervisor;

use super::config::{KafkaConfig, KafkaProducerConfig};
use crate::error::Error;
use crate::health::{Health, HealthCell};
use crate::metrics::Produced;
use crate::producer::{Delivery, InFlight, OnDelivery, ProduceError, Producer};
use crate::record::{Position, ProducerRecord};
use async_trait::async_trait;
use client::{Client, Waiting};
use lanes::{Lane, Lanes, Refused};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};
use supervisor::{Signal, Supervisor};

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

/// What outlives each client.
struct Shared {
    config: KafkaProducerConfig,
    /// `None` between a failed client and the next, and at the end.
    client: RwLock<Option<Client>>,
    in_flight: InFlight,
    in_flight_bytes: AtomicU64,
    produced: Produced,
    /// Why records are given up: the producer ends, or only its client.
    closing: AtomicBool,
    health: HealthCell,
}

impl KafkaProducer {
    /// A producer that connects in the background. Fails only if a setting is wrong.
    pub fn new(kafka: &KafkaConfig, config: KafkaProducerConfig) -> Result<Self, Error> {
        let (supervisor, signals) = mpsc::sync_channel(4);
        let client = config.client(kafka);
        let shared = Arc::new(Shared {
            config,
            client: RwLock::new(None),
            in_flight: InFlight::default(),
            in_flight_bytes: AtomicU64::new(0),
            produced: Produced::new(),
            closing: AtomicBool::new(false),
            health: HealthCell::new(Health::Starting),
        });
        let supervisor_of = Supervisor::new(Arc::clone(&shared), client, supervisor.clone());
        shared.replace(Some(supervisor_of.client().map_err(Error::Client)?));
        let name = "kafka-producer";
        let thread = thread::Builder::new().name(name.into()).spawn(move || supervisor_of.run(&signals));
        thread.map_err(|source| Error::Thread { name, source })?;
        Ok(Self { shared, supervisor })
    }
}

impl Shared {
    fn client(&self) -> RwLockReadGuard<'_, Option<Client>> {
        self.client.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, client: Option<Client>) -> Option<Client> {
        std::mem::replace(&mut *self.client.write().unwrap_or_else(PoisonError::into_inner), client)
    }

    /// Whether there is room for a record, which is then taken.
    fn admit(&self, bytes: u64) -> Result<(), ProduceError> {
        if bytes > u64::from(self.config.max_record_bytes) {
            return Err(ProduceError::TooLarge);
        }
        let records = self.in_flight.begin(1);
        let bytes_before = self.in_flight_bytes.fetch_add(bytes, Ordering::SeqCst);
        let is_room_for_bytes = bytes_before == 0 || bytes_before + bytes <= self.config.max_queued_bytes;
        if records > self.config.max_queued as usize || !is_room_for_bytes {
            self.leave(bytes);
            return Err(ProduceError::QueueFull);
        }
        Ok(())
    }

    fn leave(&self, bytes: u64) {
        self.in_flight_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.in_flight.end(1);
    }

    /// Whether the supervisor is to look after what lingers.
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<bool, ProduceError> {
        let bytes = record.size() as u64;
        self.admit(bytes)?;
        let guard = self.client();
        let Some(client) = guard.as_ref() else {
            self.leave(bytes);
            return Err(ProduceError::Unavailable { reason: "the client is being replaced".into() });
        };
        let (lingers, mut refused) = client.push(record, Delivery::new(on_delivery));
        let is_ready = self.health.is_ready();
        if !is_ready {
            // The supervisor asks the brokers, and may not look at the clock for seconds.
            let until = Instant::now() + self.config.linger_here();
            refused.extend(client.lanes.linger(until, client).1);
        }
        drop(guard);
        self.refuse(refused);
        Ok(lingers && is_ready)
    }

    /// A record is answered. No lock may be held: the callback may enqueue.
    fn answer(&self, delivery: Delivery, bytes: u64, outcome: Result<Position, ProduceError>) {
        self.produced.outcome(&outcome);
        delivery.answer(outcome);
        self.leave(bytes);
    }

    fn refuse(&self, refused: Refused<Waiting>) {
        for (waiting, error) in refused {
            let bytes = waiting.record.size() as u64;
            self.answer(waiting.delivery, bytes, Err(error));
        }
    }

    /// What follows a record of `lane` that was answered.
    fn go_on(&self, lane: &Arc<Lane<Waiting>>) {
        let client = self.client();
        let refused = Lanes::answered(lane, client.as_ref());
        drop(client);
        self.refuse(refused);
    }

    /// Answers what a client was not given any more.
    fn give_up(&self, lanes: &Lanes<Waiting>, error: &ProduceError) {
        self.refuse(lanes.give_up().into_iter().map(|waiting| (waiting, error.clone())).collect());
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError> {
        let lingers = self
            .shared
            .enqueue(record, on_delivery)
            .inspect_err(|error| self.shared.produced.failed(error))?;
        if lingers {
            // Full means that it is about to look anyway.
            drop(self.supervisor.try_send(Signal::Linger));
        }
        Ok(())
    }

    async fn flush(&self, deadline: Duration) -> Result<(), ProduceError> {
        self.shared.in_flight.wait_idle(deadline).await
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
        self.shared.closing.store(true, Ordering::SeqCst);
        // Not waited for: this may run on the thread that the supervisor has to join.
        drop(self.supervisor.try_send(Signal::Close));
    }
}

#[cfg(test)]
mod tests;
