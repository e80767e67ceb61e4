//! Several consumers and producers in one process, each with its own [`Address`].
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
//! Await or spawn the future of `run` beside those of other servers, and cancel the token to shut down. It returns once
//! every consumer has finished its batches in flight and committed.

mod backends;

use crate::address::Address;
use crate::consumer::{BatchHandler, Consumer, Ordering, RecordHandler, TransformHandler};
use crate::dead_letters::DeadLetters;
use crate::error::Error;
use crate::health::Health;
use crate::producer::Producer;
use crate::source::Source;
use backends::Backends;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time limit for flushing a producer when the runtime ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Consumers and producers of one process. Addresses with the same folder share one embedded log; Kafka addresses that
/// differ only in their topics share one producer.
#[derive(Default)]
pub struct Runtime {
    backends: Backends,
    consumers: Vec<(Arc<str>, Consumer)>,
    /// Weak, because a consumer owns its source: dropping the source leaves the group.
    sources: Vec<Weak<dyn Source>>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let consumers: Vec<&str> = self.consumers.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("Runtime").field("consumers", &consumers).finish_non_exhaustive()
    }
}

impl Runtime {
    /// A runtime without consumers and producers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a consumer whose handler takes one record at a time. This opens the embedded log if the address names one;
    /// the connection to Kafka is made by [`run`](Self::run).
    ///
    /// # Errors
    /// The address has no group or no topic, the name is taken, or the log can't be opened.
    pub fn records(self, name: &str, address: &Address, handler: impl RecordHandler) -> Result<Self, Error> {
        self.consumer(name, address, |source| Consumer::records(source, handler))
    }

    /// Adds a consumer whose handler takes batches.
    ///
    /// # Errors
    /// The same as for [`records`](Self::records), and if the address asks for order by key.
    pub fn batches(self, name: &str, address: &Address, handler: impl BatchHandler) -> Result<Self, Error> {
        require_partition_order(address).map_err(|error| with_name(name, error))?;
        self.consumer(name, address, |source| Consumer::batches(source, handler))
    }

    /// Adds a consumer whose handler turns each batch into output records. The outputs and the batch's offset are written in
    /// one transaction (see [`Consumer::transform`]). To have the output topics checked as well, make a
    /// [`producer`](Self::producer) for them.
    ///
    /// # Errors
    /// The same as for [`batches`](Self::batches), and if the address reads uncommitted records.
    pub fn transform(
        self,
        name: &str,
        address: &Address,
        handler: impl TransformHandler,
    ) -> Result<Self, Error> {
        require_partition_order(address)
            .and_then(|()| require_committed_reads(address))
            .map_err(|error| with_name(name, error))?;
        self.consumer(name, address, |source| Consumer::transform(source, handler))
    }

    /// Adds a consumer that `build` makes from the source of the address. Use it for settings that only [`Consumer`] has: a
    /// hook before commits, an observer. The runtime sets the consumer's name, configuration and dead letters.
    ///
    /// # Errors
    /// The same as for [`records`](Self::records).
    pub fn consumer(
        mut self,
        name: &str,
        address: &Address,
        build: impl FnOnce(Arc<dyn Source>) -> Consumer,
    ) -> Result<Self, Error> {
        self.add(name, address, build).map_err(|error| with_name(name, error))?;
        Ok(self)
    }

    fn add(
        &mut self,
        name: &str,
        address: &Address,
        build: impl FnOnce(Arc<dyn Source>) -> Consumer,
    ) -> Result<(), Error> {
        if self.consumers.iter().any(|(known, _)| **known == *name) {
            return Err(config_error("another consumer has this name"));
        }
        let source = self.backends.source(address)?;
        let mut consumer = build(Arc::clone(&source)).named(name).config(address.consumer_config());
        if let Some(topic) = address.dead_letters() {
            consumer = consumer.dead_letters(DeadLetters::new(self.backends.producer(address)?, topic));
        }
        self.sources.push(Arc::downgrade(&source));
        self.consumers.push((name.into(), consumer));
        Ok(())
    }

    /// A producer for the topics of an address. It may be used before and during [`run`](Self::run), and connects in the
    /// background.
    ///
    /// # Errors
    /// The embedded log can't be opened, or a setting of the client is wrong.
    pub fn producer(&mut self, address: &Address) -> Result<Arc<dyn Producer>, Error> {
        self.backends.producer(address)
    }

    /// A function that returns the health of the first consumer or producer that is not ready, for readiness checks. It does
    /// not keep consumers alive; once a consumer has ended it reports that.
    pub fn health(&self) -> impl Fn() -> Health + Clone + Send + Sync + use<> {
        let (sources, producers) = (self.sources.clone(), self.backends.producers());
        move || {
            let ended = || Health::Failing { reason: "its consumer has ended".into() };
            let sources =
                sources.iter().map(|source| source.upgrade().map_or_else(ended, |source| source.health()));
            let mut all = sources.chain(producers.iter().map(|producer| producer.health()));
            all.find(|health| *health != Health::Ready).unwrap_or(Health::Ready)
        }
    }

    /// Checks all topics, then runs all consumers until `shutdown` is cancelled. Then the consumers finish the batches in
    /// flight, commit and leave their groups. Producers are flushed in any case. Dropping the future abandons
    /// everything at once.
    ///
    /// # Errors
    /// A topic check failed: no consumer was started. Or a consumer ended with an error, which carries its name: the others
    /// were shut down gracefully.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let producers = self.backends.producers();
        let outcome = self.consume(shutdown).await;
        for producer in producers {
            if let Err(error) = producer.flush(FLUSH_TIMEOUT).await {
                tracing::warn!(%error, "not all records were written before the runtime ended");
            }
        }
        outcome
    }

    async fn consume(self, shutdown: CancellationToken) -> Result<(), Error> {
        tokio::select! {
            biased;
            result = self.backends.check_topics() => result?,
            () = shutdown.cancelled() => return Ok(()),
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
                    if let Err(error) = result.map_err(|error| with_name(name, error)) {
                        tracing::error!(error = &error as &dyn std::error::Error, "a consumer failed, stopping all");
                        outcome = outcome.and(Err(error));
                        stop.cancel();
                    }
                }
                () = stop.cancelled(), if running.is_empty() => return outcome,
            }
        }
    }
}

fn require_partition_order(address: &Address) -> Result<(), Error> {
    if address.consumer_config().ordering == Ordering::Partition {
        return Ok(());
    }
    Err(config_error("`ordering=key` is for handlers of single records"))
}

fn require_committed_reads(address: &Address) -> Result<(), Error> {
    if address.reads_uncommitted() {
        let error = "`isolation=read_uncommitted` is not for transformations: after a crash, records would be written twice";
        return Err(config_error(error));
    }
    Ok(())
}

fn config_error(error: &str) -> Error {
    Error::Address { errors: vec![error.to_owned()] }
}

fn with_name(name: &str, error: Error) -> Error {
    Error::Consumer { name: name.to_owned(), source: Box::new(error) }
}
