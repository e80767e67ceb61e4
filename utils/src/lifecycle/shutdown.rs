//! What has to be done to stop, in order.

use super::{Drain, Tasks};
use crate::Readiness;
use futures_util::{FutureExt as _, future::BoxFuture, future::join_all};
use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// The phases of a stop, in their order. Why this order: nobody new is sent here before the door is closed; clients
/// leave before the work that they have given is finished; the log has everything before its producer goes; what the
/// others write through goes after them; telemetry sees it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Leave discovery. Readiness is switched off before.
    Deregister,
    /// Close listeners.
    StopAccepting,
    /// Tell connected clients to go elsewhere.
    TellClients,
    /// Stop fetching; finish and commit what is in flight.
    FinishWork,
    /// Flush the producer.
    Flush,
    /// Close connections to databases and caches.
    Pools,
    /// Logs, metrics and the admin server.
    Telemetry,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Deregister,
        Self::StopAccepting,
        Self::TellClients,
        Self::FinishWork,
        Self::Flush,
        Self::Pools,
        Self::Telemetry,
    ];
}

/// How often [`Shutdown::probe`] asks a dependency.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How long [`Shutdown::flush`] gives a producer.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

type Work = (&'static str, BoxFuture<'static, ()>);

/// Everything that starts and stops a process. A clone is the same.
#[derive(Clone)]
pub struct Shutdown {
    drain: Drain,
    tasks: Tasks,
    readiness: Readiness,
    work: Arc<Mutex<BTreeMap<Phase, Vec<Work>>>>,
}

impl Shutdown {
    /// Nothing to do yet; a stop may take `limit`.
    pub fn new(limit: Duration) -> Self {
        let drain = Drain::new(limit);
        Self { tasks: Tasks::new(drain.clone()), drain, readiness: Readiness::new(), work: Arc::default() }
    }

    /// Says that it is time.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Owns what runs.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The latches of this process.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Adds work to a phase. It is begun when the phase comes, beside the other work of that phase. Work that is added
    /// after its phase is never begun: add it while the program starts.
    pub fn on(&self, phase: Phase, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.lock().entry(phase).or_default().push((name, work.boxed()));
    }

    /// Asks a dependency every two seconds whether it answers, and sets its latch accordingly, until the drain begins.
    pub fn probe<F, E>(&self, dependency: &'static str, mut ask: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let latch = self.readiness.latch(dependency);
        let ask = move || ask().map(|answer| answer.map_err(|error| error.to_string()));
        self.tasks.spawn(dependency, latch.probe(PROBE_INTERVAL, self.drain.token(), ask));
    }

    /// Flushes a producer in [`Phase::Flush`]; `flush` gets the time that it may take.
    pub fn flush<F, E>(&self, flush: impl FnOnce(Duration) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        self.on(Phase::Flush, "producer", async move {
            if let Err(error) = flush(FLUSH_TIMEOUT).await {
                tracing::warn!(%error, "producer not flushed in time; unacknowledged records may be missing in the log");
            }
        });
    }

    /// A token that is cancelled when a phase comes.
    pub fn token(&self, phase: Phase) -> CancellationToken {
        let token = CancellationToken::new();
        let cancel = token.clone();
        self.on(phase, "token", async move { cancel.cancel() });
        token
    }

    /// Waits for the drain to begin, then goes through the phases and waits for all tasks. Returns when all is done or
    /// the limit has passed.
    pub async fn run(&self) {
        self.drain.begun().await;
        self.readiness.begin_drain();
        let phases = async {
            for phase in Phase::ALL {
                let work = self.lock().remove(&phase).unwrap_or_default();
                join_all(work.into_iter().map(|(name, work)| async move {
                    tracing::debug!(?phase, name, "stopping");
                    work.await;
                }))
                .await;
            }
            self.tasks.join().await;
        };
        tokio::select! {
            () = phases => tracing::info!("stopped"),
            () = tokio::time::sleep(self.drain.limit()) => {
                tracing::warn!(limit = ?self.drain.limit(), tasks = self.tasks.len(), "not stopped in time; ending");
                self.drain.end();
            }
            () = self.drain.ended() => tracing::warn!("ended at once"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Phase, Vec<Work>>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shutdown")
            .field("drain", &self.drain)
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn p9_phases_run_in_order_whatever_the_order_of_registration() {
        let shutdown = Shutdown::new(Duration::from_secs(60));
        shutdown.readiness().latch("log").ready();
        let order = Arc::new(Mutex::new(Vec::new()));
        for phase in Phase::ALL.into_iter().rev() {
            let (order, readiness) = (order.clone(), shutdown.readiness().clone());
            shutdown.on(phase, "test", async move {
                assert!(!readiness.is_ready(), "readiness goes first");
                tokio::time::sleep(Duration::from_secs(1)).await;
                order.lock().unwrap().push(phase);
            });
        }
        let server = shutdown.token(Phase::StopAccepting);
        shutdown.tasks().spawn_critical("server", async move { server.cancelled().await });
        shutdown.drain().begin("test");
        shutdown.run().await;
        assert_eq!(*order.lock().unwrap(), Phase::ALL);
        assert!(shutdown.tasks().is_empty() && !shutdown.tasks().failed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_phase_that_hangs_is_ended_by_the_limit() {
        let shutdown = Shutdown::new(Duration::from_secs(3));
        shutdown.on(Phase::Flush, "hangs", std::future::pending());
        shutdown.drain().begin("test");
        let start = Instant::now();
        shutdown.run().await;
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        shutdown.drain().ended().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_wish_ends_at_once() {
        let shutdown = Shutdown::new(Duration::from_secs(30));
        shutdown.on(Phase::Flush, "hangs", std::future::pending());
        shutdown.drain().end();
        let start = Instant::now();
        shutdown.run().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
