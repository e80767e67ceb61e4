//! The producer: idempotent, acknowledged by all in-sync replicas, one callback per record.
//!
//! A supervisor thread owns the client. It probes the brokers while their state is unknown. It replaces a
//! client that has failed permanently (for example a fenced idempotent producer) or that has held a record past
//! its timeout. It also drops clients, which is not possible on the thread that runs the callbacks.
//!
//! The client never times out a single record: it would still write the records behind it, and a retry of the
//! first one would come too late. Instead all records of a client fail together. The producer accepts no record
//! until their senders have been notified.
//!
//! Records wait in [`queues`]. The client has one batch per partition at a time.

mod ages;
mod client;
mod partitions;
mod queues;
mod supervisor;

use super::config::{KafkaConfig, KafkaProducerConfig};
use crate::error::Error;
use crate::health::{Health, HealthCell};
use crate::metrics::Produced;
use crate::producer::{Delivery, InFlight, OnDelivery, ProduceError, Producer};
use crate::record::{Position, ProducerRecord};
use async_trait::async_trait;
use client::{Client, QueuedRecord};
use queues::{PartitionQueue, PartitionQueues, Rejected};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};
use supervisor::{Signal, Supervisor};

/// Writes records to Kafka. Dropping it fails the records in flight with [`ProduceError::Closed`], so
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

/// State that outlives each client.
struct Shared {
    config: KafkaProducerConfig,
    /// `None` while the client is being replaced, and after the end.
    client: RwLock<Option<Client>>,
    in_flight: InFlight,
    in_flight_bytes: AtomicU64,
    produced: Produced,
    /// Whether records fail because the producer was closed, rather than because its client was replaced.
    closing: AtomicBool,
    health: HealthCell,
}

impl KafkaProducer {
    /// A producer that connects in the background. Fails only if a setting is invalid.
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
        let thread_state = Supervisor::new(Arc::clone(&shared), client, supervisor.clone());
        shared.replace(Some(thread_state.client().map_err(Error::Client)?));
        let name = "kafka-producer";
        let thread = thread::Builder::new().name(name.into()).spawn(move || thread_state.run(&signals));
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

    /// Reserves room for a record.
    fn admit(&self, bytes: u64) -> Result<(), ProduceError> {
        if bytes > u64::from(self.config.max_record_bytes) {
            return Err(ProduceError::TooLarge);
        }
        let records = self.in_flight.begin(1);
        let bytes_before = self.in_flight_bytes.fetch_add(bytes, Ordering::SeqCst);
        let is_room_for_bytes = bytes_before == 0 || bytes_before + bytes <= self.config.max_queued_bytes;
        if records > self.config.max_queued as usize || !is_room_for_bytes {
            self.release(bytes);
            return Err(ProduceError::QueueFull);
        }
        Ok(())
    }

    fn release(&self, bytes: u64) {
        self.in_flight_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.in_flight.end(1);
    }

    /// Returns whether the supervisor must be woken to watch the linger time.
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<bool, ProduceError> {
        let bytes = record.size() as u64;
        self.admit(bytes)?;
        let guard = self.client();
        let Some(client) = guard.as_ref() else {
            self.release(bytes);
            return Err(ProduceError::Unavailable { reason: "the client is being replaced".into() });
        };
        let (lingers, mut rejected) = client.push(record, Delivery::new(on_delivery));
        let is_ready = self.health.is_ready();
        if !is_ready {
            // The supervisor may be blocked for seconds, probing the brokers, and cannot watch the linger time.
            let until = Instant::now() + self.config.queue_linger();
            rejected.extend(client.queues.linger(until, client).1);
        }
        drop(guard);
        self.reject(rejected);
        Ok(lingers && is_ready)
    }

    /// Answers a record. The caller must hold no lock, because the callback may enqueue.
    fn answer(&self, delivery: Delivery, bytes: u64, outcome: Result<Position, ProduceError>) {
        self.produced.outcome(&outcome);
        delivery.answer(outcome);
        self.release(bytes);
    }

    fn reject(&self, rejected: Rejected<QueuedRecord>) {
        for (queued, error) in rejected {
            let bytes = queued.record.size() as u64;
            self.answer(queued.delivery, bytes, Err(error));
        }
    }

    /// Continues with the queue of a record that was answered.
    fn continue_queue(&self, queue: &Arc<PartitionQueue<QueuedRecord>>) {
        let client = self.client();
        let rejected = PartitionQueues::answered(queue, client.as_ref());
        drop(client);
        self.reject(rejected);
    }

    /// Fails the records that a client has not been given.
    fn fail_queued(&self, queues: &PartitionQueues<QueuedRecord>, error: &ProduceError) {
        self.reject(queues.drain().into_iter().map(|queued| (queued, error.clone())).collect());
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
            // If the channel is full, the supervisor is about to wake up anyway.
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
        // Does not wait for the thread: this may run on a thread that the supervisor has to join.
        drop(self.supervisor.try_send(Signal::Close));
    }
}

#[cfg(test)]
mod tests;
