//! The supervisor thread: owns the clients and their timers.

use super::Shared;
use super::ages::Ages;
use super::client::{Client, Context};
use super::queues::PartitionQueues;
use crate::producer::{FAILURE_PAUSE, ProduceError};
use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{Producer as _, PurgeConfig, ThreadedProducer};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

const PROBE_EVERY: Duration = Duration::from_millis(500);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a purged client may take to answer its records.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) enum Signal {
    /// A queue has started to linger, and it is the only one.
    Linger,
    /// The client has failed permanently.
    Fatal,
    Close,
}

pub(super) struct Supervisor {
    shared: Arc<Shared>,
    config: ClientConfig,
    supervisor: SyncSender<Signal>,
}

impl Supervisor {
    pub(super) fn new(shared: Arc<Shared>, config: ClientConfig, supervisor: SyncSender<Signal>) -> Self {
        Self { shared, config, supervisor }
    }

    pub(super) fn client(&self) -> Result<Client, KafkaError> {
        let context = Context::new(Arc::downgrade(&self.shared), self.supervisor.clone());
        let producer = ThreadedProducer::from_config_and_context(&self.config, context)?;
        Ok(Client { producer, queues: PartitionQueues::new(self.shared.config.queue_linger()) })
    }

    pub(super) fn run(self, signals: &mpsc::Receiver<Signal>) {
        let age_step = Ages::step(self.shared.config.timeout);
        let (mut age_at, mut probe_at) = (Instant::now() + age_step, Instant::now() + PROBE_EVERY);
        let mut lingers_until = None;
        while !self.shared.closing.load(Ordering::SeqCst) {
            let next = lingers_until.unwrap_or(age_at).min(age_at).min(probe_at);
            match signals.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Signal::Fatal) => self.replace_client(),
                Ok(Signal::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Signal::Linger) | Err(RecvTimeoutError::Timeout) => {}
            }
            lingers_until = self.linger();
            if age_at <= Instant::now() {
                self.check_timeout();
                age_at = Instant::now() + age_step;
            }
            if probe_at <= Instant::now() {
                self.retry();
                self.probe();
                probe_at = Instant::now() + PROBE_EVERY;
            }
        }
        if let Some(Client { producer, queues }) = self.shared.replace(None) {
            // Dropping the client purges its records, which answers them.
            drop(producer);
            self.shared.fail_queued(&queues, &ProduceError::Closed);
        }
    }

    /// Hands over the queues whose linger time is over. Returns when the next one is due.
    fn linger(&self) -> Option<Instant> {
        let client = self.shared.client();
        let (next, rejected) = client.as_ref().map(|client| client.queues.linger(Instant::now(), client))?;
        drop(client);
        self.shared.reject(rejected);
        next
    }

    fn retry(&self) {
        let client = self.shared.client();
        let rejected = client.as_ref().map_or_else(Vec::new, |client| client.queues.retry(client));
        drop(client);
        self.shared.reject(rejected);
    }

    fn check_timeout(&self) {
        let expired = self.shared.client().as_ref().is_some_and(|client| {
            let context = client.producer.context();
            let is_too_old = context.ages.advance().is_err();
            context.expired.store(is_too_old, Ordering::SeqCst);
            is_too_old
        });
        if expired {
            let timeout = self.shared.config.timeout;
            tracing::error!(?timeout, "kafka did not confirm a record in time, failing all queued records");
            self.replace_client();
        }
    }

    /// Replaces the client. All records of the old client are answered before the new one accepts any.
    #[expect(clippy::disallowed_methods, reason = "this thread has nothing else to do meanwhile")]
    fn replace_client(&self) {
        tracing::warn!("replacing the kafka producer");
        // Created first, so that it connects in the meantime.
        let new = self.client().inspect_err(|error| {
            tracing::error!(%error, "cannot create a kafka producer, trying again");
        });
        let old = self.shared.replace(None);
        if let Some(Client { producer, queues }) = &old {
            producer.purge(PurgeConfig::default().queue().inflight());
            if let Err(error) = producer.flush(PURGE_TIMEOUT) {
                tracing::error!(%error, "the old kafka producer did not release all of its records in time");
            }
            self.shared.fail_queued(queues, &producer.context().reason(&self.shared));
            thread::sleep(FAILURE_PAUSE);
        }
        self.shared.replace(new.ok());
        // Closes the old connections, which no caller has to wait for.
        drop(old);
    }

    fn probe(&self) {
        let client = self.shared.client();
        let Some(client) = &*client else {
            drop(client);
            return self.replace_client();
        };
        // Probe only if the brokers' state is unknown and no record is in flight. Confirmed records prove that
        // the brokers answer, and errors tell otherwise. With records in flight this thread must not block,
        // because it watches their timeout.
        let must_probe = !self.shared.health.is_ready() && self.shared.in_flight.is_idle();
        if must_probe && client.producer.client().fetch_metadata(None, PROBE_TIMEOUT).is_ok() {
            self.shared.health.ready();
        }
    }
}
