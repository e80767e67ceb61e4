//! The thread that owns the life of the clients, and looks at the clock.

use super::Shared;
use super::ages::Ages;
use super::client::{Client, Context};
use super::lanes::Lanes;
use crate::producer::{NOTICE, ProduceError};
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
/// So long a client may take to answer what it is made to give up.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) enum Signal {
    /// Something has begun to linger, and nothing else did.
    Linger,
    /// The client has failed for good.
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
        Ok(Client { producer, lanes: Lanes::new(self.shared.config.linger_here()) })
    }

    pub(super) fn run(self, signals: &mpsc::Receiver<Signal>) {
        let older_every = Ages::step(self.shared.config.timeout);
        let (mut older_at, mut probe_at) = (Instant::now() + older_every, Instant::now() + PROBE_EVERY);
        let mut lingers_until = None;
        while !self.shared.closing.load(Ordering::SeqCst) {
            let next = lingers_until.unwrap_or(older_at).min(older_at).min(probe_at);
            match signals.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Signal::Fatal) => self.renew(),
                Ok(Signal::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Signal::Linger) | Err(RecvTimeoutError::Timeout) => {}
            }
            lingers_until = self.linger();
            if older_at <= Instant::now() {
                self.grow_older();
                older_at = Instant::now() + older_every;
            }
            if probe_at <= Instant::now() {
                self.retry();
                self.look_after();
                probe_at = Instant::now() + PROBE_EVERY;
            }
        }
        if let Some(Client { producer, lanes }) = self.shared.replace(None) {
            // Purges what it was given, and so answers it.
            drop(producer);
            self.shared.give_up(&lanes, &ProduceError::Closed);
        }
    }

    /// Hands over what has lingered, and tells when there is more.
    fn linger(&self) -> Option<Instant> {
        let client = self.shared.client();
        let (next, refused) = client.as_ref().map(|client| client.lanes.linger(Instant::now(), client))?;
        drop(client);
        self.shared.refuse(refused);
        next
    }

    fn retry(&self) {
        let client = self.shared.client();
        let refused = client.as_ref().map_or_else(Vec::new, |client| client.lanes.retry(client));
        drop(client);
        self.shared.refuse(refused);
    }

    fn grow_older(&self) {
        let expired = self.shared.client().as_ref().is_some_and(|client| {
            let context = client.producer.context();
            let is_too_old = context.ages.grow_older().is_err();
            context.expired.store(is_too_old, Ordering::SeqCst);
            is_too_old
        });
        if expired {
            let timeout = self.shared.config.timeout;
            tracing::error!(?timeout, "kafka did not take a record in time, giving up all that wait");
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
        if let Some(Client { producer, lanes }) = &old {
            producer.purge(PurgeConfig::default().queue().inflight());
            if let Err(error) = producer.flush(PURGE_TIMEOUT) {
                tracing::error!(%error, "the old kafka producer does not give all of its records up");
            }
            self.shared.give_up(lanes, &producer.context().reason(&self.shared));
            thread::sleep(NOTICE);
        }
        self.shared.replace(new.ok());
        // Ends its connections, for which nobody has to wait.
        drop(old);
    }

    fn look_after(&self) {
        let client = self.shared.client();
        let Some(client) = &*client else {
            drop(client);
            return self.renew();
        };
        // While all is well, confirmed records are proof enough; when they stop, errors say so. What waits tells by itself, and must
        // not grow old unseen while this waits.
        let asks = !self.shared.health.is_ready() && self.shared.in_flight.is_idle();
        if asks && client.producer.client().fetch_metadata(None, PROBE_TIMEOUT).is_ok() {
            self.shared.health.ready();
        }
    }
}
