//! Kafka as a [`Source`]: a member of a consumer group.

use super::assignment::{Assignment, list};
use super::config::KafkaSourceConfig;
use super::poll;
use super::start::Policy;
use super::transactions::{self, Request, Transactor};
use crate::error::Error;
use crate::health::{Health, HealthCell};
use crate::record::ProducerRecord;
use crate::source::{AssignedPartition, Event, Offsets, Source, StartOffsets};
use async_trait::async_trait;
use futures_util::future::BoxFuture;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::Offset;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Time limit for leaving the group. After it the thread finishes alone.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Capacity of the channel of events. When it is full the polling thread waits.
const EVENTS: usize = 16;

/// A member of a consumer group. Joins when it is started. Dropping it leaves the group without committing.
pub struct KafkaSource {
    config: KafkaSourceConfig,
    health: Arc<HealthCell>,
    closing: Arc<AtomicBool>,
    running: Mutex<Running>,
    /// Sends requests to the thread of transactions, which the first request starts.
    transactor: Mutex<Option<mpsc::Sender<Request>>>,
    events: tokio::sync::Mutex<Option<mpsc::Receiver<Result<Event, Error>>>>,
}

#[derive(Default)]
struct Running {
    /// Weak: the polling thread owns the consumer, so that it is closed there.
    consumer: Weak<BaseConsumer<Assignment>>,
    ended: Option<oneshot::Receiver<()>>,
}

impl std::fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSource").field("config", &self.config).finish_non_exhaustive()
    }
}

impl KafkaSource {
    /// A member that has not joined yet.
    pub fn new(config: KafkaSourceConfig) -> Self {
        Self {
            config,
            health: Arc::new(HealthCell::new(Health::Starting)),
            closing: Arc::default(),
            running: Mutex::default(),
            transactor: Mutex::default(),
            events: tokio::sync::Mutex::default(),
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transactor(&self) -> Result<mpsc::Sender<Request>, Error> {
        let mut transactor = self.transactor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = &*transactor {
            return Ok(requests.clone());
        }
        if self.closing.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        let (sender, requests) = mpsc::channel(transactions::QUEUE);
        let thread = Transactor::new(Weak::clone(&self.running().consumer), &self.config);
        let name = "kafka-transactor";
        thread::Builder::new()
            .name(name.into())
            .spawn(move || thread.run(requests))
            .map_err(|source| Error::Thread { name, source })?;
        Ok(transactor.insert(sender).clone())
    }

    fn join(&self, policy: Policy) -> Result<mpsc::Receiver<Result<Event, Error>>, Error> {
        let (sender, events) = mpsc::channel(EVENTS);
        let closing = Arc::clone(&self.closing);
        let assignment =
            Assignment::new(sender, &self.config, Arc::clone(&self.health), Arc::clone(&closing), policy);
        let consumer = BaseConsumer::from_config_and_context(&self.config.client(), assignment)
            .map_err(Error::Client)?;
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|source| Error::Kafka { action: "subscribe", source })?;
        let consumer = Arc::new(consumer);
        let weak = Arc::downgrade(&consumer);
        let (end, ended) = oneshot::channel();
        let name = "kafka-source";
        let with_headers = self.config.headers;
        let run = move || {
            poll::run(consumer, &closing, with_headers);
            // The receiver may have been dropped.
            let _ = end.send(());
        };
        thread::Builder::new()
            .name(name.into())
            .spawn(run)
            .map_err(|source| Error::Thread { name, source })?;
        *self.running() = Running { consumer: weak, ended: Some(ended) };
        Ok(events)
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn start(&self, start_offsets: Option<StartOffsets>) -> Result<(), Error> {
        let hook = start_offsets.map(|hook| (hook, Handle::current()));
        let policy = Policy { initial: self.config.initial_offset, hook };
        *self.events.lock().await = Some(self.join(policy)?);
        Ok(())
    }

    async fn next(&self) -> Result<Event, Error> {
        let mut events = self.events.lock().await;
        let next = match events.as_mut() {
            Some(events) => events.recv().await,
            None => None,
        };
        next.unwrap_or(Err(Error::Closed))
    }

    async fn commit(&self, offsets: Offsets) -> Result<(), Error> {
        let Some(consumer) = self.running().consumer.upgrade() else { return Err(Error::Closed) };
        let commit = move || {
            let mut commits = list([]);
            for (partition, next) in &offsets {
                commits.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*next))?;
            }
            consumer.commit(&commits, CommitMode::Sync)
        };
        // Synchronous, because the outcome of an asynchronous commit can be lost. On its own thread, because
        // polling continues.
        let result = tokio::task::spawn_blocking(commit).await.map_err(|_| Error::Closed)?;
        result.map_err(|source| Error::Kafka { action: "commit", source })?;
        self.health.ready();
        Ok(())
    }

    fn transact(
        &self,
        from: &AssignedPartition,
        next: i64,
        outputs: Vec<ProducerRecord>,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let (reply, written) = oneshot::channel();
        let request = Request { from: from.clone(), next, outputs, reply };
        let transactor = self.transactor();
        Box::pin(async move {
            transactor?.send(request).await.map_err(|_| Error::Closed)?;
            written.await.map_err(|_| Error::Closed)?
        })
    }

    async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        // The thread of transactions ends after the requests that it has taken.
        drop(self.transactor.lock().unwrap_or_else(PoisonError::into_inner).take());
        // No task receives events any more. A revocation in the channel would block the thread, and with it the
        // whole group.
        *self.events.lock().await = None;
        let ended = self.running().ended.take();
        if let Some(ended) = ended
            && tokio::time::timeout(CLOSE_TIMEOUT, ended).await.is_err()
        {
            tracing::warn!(timeout = ?CLOSE_TIMEOUT, "the group was not left in time");
        }
    }

    fn health(&self) -> Health {
        self.health.get()
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
    }
}
