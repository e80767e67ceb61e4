//! Several consumers and producers in one process, each on an [`Address`] of its own.
//!
//! ```no_run
//! # use kafka_runtime::{Address, HandlerError, Message, Runtime};
//! # use tokio_util::sync::CancellationToken;
//! # async fn example(mail: Address, audit: Address) -> Result<(), kafka_runtime::Error> {
//! # let send_mail = tower::service_fn(|_: Message| async { Ok::<_, HandlerError>(()) });
//! # let write_audit = tower::service_fn(|_: kafka_runtime::Batch| async { Ok::<_, HandlerError>(Default::default()) });
//! let stop = CancellationToken::new();
//! Runtime::new()
//!     .records("mail", &mail, send_mail)?
//!     .batches("audit", &audit, write_audit)?
//!     .run(stop)
//!     .await
//! # }
//! ```
//!
//! `run` is a future like that of any other server: spawn it beside them, and cancel the token when the process is to
//! end. It returns once everything is finished and committed.

mod opened;

use crate::address::Address;
use crate::consumer::{BatchHandler, Consumer, DeadLetters, Ordering, RecordHandler, TransformHandler};
use crate::error::Error;
use crate::health::Health;
use crate::kafka::{KafkaConfig, KafkaSource};
use crate::producer::Producer;
use crate::source::Source;
use crate::topics::{TopicSpec, ensure};
use opened::Opened;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Records in flight have so long to reach their log at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Consumers and producers of one process. Every embedded log is opened once per folder, every Kafka producer once per
/// address but for its topics.
#[derive(Default)]
pub struct Runtime {
    opened: Opened,
    consumers: Vec<(Arc<str>, Consumer)>,
    /// The consumers own them: a source that is gone has left its group.
    sources: Vec<Weak<dyn Source>>,
    checks: Vec<Check>,
}

/// Topics that must be as they should before anything runs.
struct Check {
    kafka: KafkaConfig,
    topics: Vec<TopicSpec>,
    timeout: Duration,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let consumers: Vec<&str> = self.consumers.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("Runtime").field("consumers", &consumers).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a consumer whose handler takes one record at a time. Opens the embedded log, if that is what the address
    /// names; Kafka is asked when everything [runs](Self::run).
    ///
    /// # Errors
    /// The address has no group or no topic, the name is taken, or the log can't be opened.
    pub fn records(self, name: &str, address: &Address, handler: impl RecordHandler) -> Result<Self, Error> {
        self.consumer(name, address, |source| Consumer::records(source, handler))
    }

    /// Adds a consumer whose handler takes batches.
    ///
    /// # Errors
    /// As those of [`records`](Self::records); order by key is for records.
    pub fn batches(self, name: &str, address: &Address, handler: impl BatchHandler) -> Result<Self, Error> {
        in_partition_order(address).map_err(|error| of(name, error))?;
        self.consumer(name, address, |source| Consumer::batches(source, handler))
    }

    /// Adds a consumer whose handler makes records out of each batch, which are written together with the batch's offset (see
    /// [`Consumer::transform`]). Their topics are those of a [`producer`](Self::producer), so that they are checked too.
    ///
    /// # Errors
    /// As those of [`batches`](Self::batches), or what is read is not committed.
    pub fn transform(
        self,
        name: &str,
        address: &Address,
        handler: impl TransformHandler,
    ) -> Result<Self, Error> {
        in_partition_order(address).and_then(|()| of_committed(address)).map_err(|error| of(name, error))?;
        self.consumer(name, address, |source| Consumer::transform(source, handler))
    }

    /// Adds a consumer that `build` makes from the source of the address, for what only a [`Consumer`] can: a hook before
    /// commits, an observer. It gets its name, its configuration and its dead letters here.
    ///
    /// # Errors
    /// As those of [`records`](Self::records).
    pub fn consumer(
        mut self,
        name: &str,
        address: &Address,
        build: impl FnOnce(Arc<dyn Source>) -> Consumer,
    ) -> Result<Self, Error> {
        self.add(name, address, build).map_err(|error| of(name, error))?;
        Ok(self)
    }

    fn add(
        &mut self,
        name: &str,
        address: &Address,
        build: impl FnOnce(Arc<dyn Source>) -> Consumer,
    ) -> Result<(), Error> {
        if self.consumers.iter().any(|(known, _)| **known == *name) {
            return Err(Error::Address { faults: vec!["another consumer has this name".into()] });
        }
        let source = self.source(address)?;
        let mut consumer = build(Arc::clone(&source)).named(name).config(address.consumer_config());
        if let Some(topic) = address.dead_letters() {
            consumer = consumer.dead_letters(DeadLetters::new(self.opened.producer(address)?, topic));
        }
        self.check(address)?;
        self.sources.push(Arc::downgrade(&source));
        self.consumers.push((name.into(), consumer));
        Ok(())
    }

    fn source(&mut self, address: &Address) -> Result<Arc<dyn Source>, Error> {
        let (group, topics) = address.subscription()?;
        if let Some(log) = self.opened.log(address)? {
            let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
            return Ok(Arc::new(log.source(group, &topics)?.initial_offset(address.initial_offset())));
        }
        // Without a log it is Kafka.
        let config = address.source_config()?.ok_or(Error::Closed)?;
        Ok(Arc::new(KafkaSource::new(config)))
    }

    /// A producer for the topics of an address, to be used before and while everything runs. It connects in the
    /// background.
    ///
    /// # Errors
    /// The embedded log can't be opened, or a setting of the client is wrong.
    pub fn producer(&mut self, address: &Address) -> Result<Arc<dyn Producer>, Error> {
        self.check(address)?;
        self.opened.producer(address)
    }

    /// Notes what must be checked before the start.
    fn check(&mut self, address: &Address) -> Result<(), Error> {
        let Some(kafka) = address.kafka_config()? else { return Ok(()) };
        let timeout = address.start_timeout();
        let check = match self.checks.iter_mut().find(|check| check.kafka == kafka) {
            Some(check) => check,
            None => self.checks.push_mut(Check { kafka, topics: Vec::new(), timeout }),
        };
        check.timeout = check.timeout.max(timeout);
        for spec in address.topic_specs() {
            match check.topics.iter_mut().find(|known| known.name == spec.name) {
                Some(known) => known.add(spec),
                None => check.topics.push(spec),
            }
        }
        Ok(())
    }

    /// What tells whether everything answers, for readiness: the first consumer or producer that does not. It holds no
    /// consumer: after their end it says so.
    pub fn health(&self) -> impl Fn() -> Health + Clone + Send + Sync + use<> {
        let (sources, producers) = (self.sources.clone(), self.opened.producers());
        move || {
            let ended = || Health::Failing { reason: "its consumer has ended".into() };
            let sources =
                sources.iter().map(|source| source.upgrade().map_or_else(ended, |source| source.health()));
            let mut all = sources.chain(producers.iter().map(|producer| producer.health()));
            all.find(|health| *health != Health::Ready).unwrap_or(Health::Ready)
        }
    }

    /// Checks all topics, then runs all consumers until `shutdown` is cancelled; then they finish what is in flight, commit and
    /// leave their groups, and producers are flushed, which they are whatever the outcome. Dropping the future abandons everything at
    /// once.
    ///
    /// # Errors
    /// A check failed (see [`ensure`]): nothing ran. Or a consumer ended with an error, which bears its name: the others were
    /// stopped in order.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let producers = self.opened.producers();
        let outcome = self.consume(shutdown).await;
        for producer in producers {
            if let Err(error) = producer.flush(FLUSH).await {
                tracing::warn!(%error, "not all records reached the log before the end");
            }
        }
        outcome
    }

    async fn consume(self, shutdown: CancellationToken) -> Result<(), Error> {
        for Check { kafka, topics, timeout } in &self.checks {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                result = ensure(kafka, topics, *timeout) => result?,
            }
        }
        let stop = shutdown.child_token();
        let (mut running, mut names) = (JoinSet::new(), HashMap::new());
        for (name, consumer) in self.consumers {
            tracing::info!(consumer = &*name, "consumer starts");
            names.insert(running.spawn(consumer.run(stop.clone())).id(), name);
        }
        let mut outcome = Ok(());
        loop {
            tokio::select! {
                Some(ended) = running.join_next_with_id() => {
                    let (id, result) = match ended {
                        Ok((id, result)) => (id, result),
                        Err(error) => (error.id(), Err(Error::Panicked)),
                    };
                    let name = names.get(&id).map_or("", |name| &**name);
                    if let Err(error) = result.map_err(|error| of(name, error)) {
                        tracing::error!(error = &error as &dyn std::error::Error, "a consumer ended, stopping all");
                        outcome = outcome.and(Err(error));
                        stop.cancel();
                    }
                }
                () = stop.cancelled(), if running.is_empty() => return outcome,
            }
        }
    }
}

fn in_partition_order(address: &Address) -> Result<(), Error> {
    if address.consumer_config().ordering == Ordering::Partition {
        return Ok(());
    }
    Err(Error::Address { faults: vec!["`ordering=key` is for handlers of single records".into()] })
}

fn of_committed(address: &Address) -> Result<(), Error> {
    match address.source_config()? {
        Some(config) if config.isolation == "read_uncommitted" => {
            let fault = "`isolation=read_uncommitted` is not for handlers that make records: after a crash they would be made twice";
            Err(Error::Address { faults: vec![fault.into()] })
        }
        _ => Ok(()),
    }
}

fn of(name: &str, error: Error) -> Error {
    Error::Consumer { name: name.to_owned(), source: Box::new(error) }
}
