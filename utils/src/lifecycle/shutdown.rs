//! The work of a shutdown, in phases.

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

/// The phases of a shutdown, in order.
///
/// The order has these reasons. Clients stop sending before the listeners close. Clients leave before the service
/// finishes their work. The producer flushes after the last record was produced. Connection pools close after their
/// last user. Telemetry stops last, so that it covers the whole shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Leave discovery. The process is already not ready.
    Deregister,
    /// Close listeners.
    StopAccepting,
    /// Tell connected clients to reconnect elsewhere.
    TellClients,
    /// Stop fetching; finish and commit the records in flight.
    FinishWork,
    /// Flush the producer.
    Flush,
    /// Close connections to databases and caches.
    Pools,
    /// Stop logs, metrics and the admin server.
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

/// Interval of the checks of [`Shutdown::probe`].
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Time limit of a producer's flush.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

type Work = (&'static str, BoxFuture<'static, ()>);

/// Holds the drain, the tasks, the readiness and the shutdown work of a process. Clones share one state.
#[derive(Clone)]
pub struct Shutdown {
    drain: Drain,
    tasks: Tasks,
    readiness: Readiness,
    work: Arc<Mutex<BTreeMap<Phase, Vec<Work>>>>,
}

impl Shutdown {
    /// A shutdown without work. Once begun, it may take `limit`.
    pub fn new(limit: Duration) -> Self {
        let drain = Drain::new(limit);
        Self { tasks: Tasks::new(drain.clone()), drain, readiness: Readiness::new(), work: Arc::default() }
    }

    /// The drain that starts this shutdown.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// The tasks of this process.
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// The readiness of this process.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Adds work to a phase. All work of a phase runs concurrently. Add it during startup: work that is added after its
    /// phase never runs.
    pub fn on(&self, phase: Phase, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.lock().entry(phase).or_default().push((name, work.boxed()));
    }

    /// Checks a dependency every two seconds and sets or clears its latch, until the drain begins.
    pub fn probe<F, E>(&self, dependency: &'static str, mut check: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display,
    {
        let latch = self.readiness.latch(dependency);
        let check = move || check().map(|result| result.map_err(|error| error.to_string()));
        self.tasks.spawn(dependency, latch.probe(PROBE_INTERVAL, self.drain.token(), check));
    }

    /// Checks a dependency every two seconds for a failure that leaves the process able to work, and warns of it, until the
    /// drain begins.
    pub fn warn_of(
        &self,
        dependency: &'static str,
        mut check: impl FnMut() -> Result<(), String> + Send + 'static,
    ) {
        let (readiness, stop) = (self.readiness.clone(), self.drain.token());
        self.tasks.spawn("warnings", async move {
            while !stop.is_cancelled() {
                readiness.warn(dependency, check().err());
                tokio::select! {
                    () = tokio::time::sleep(PROBE_INTERVAL) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
    }

    /// Flushes a producer in [`Phase::Flush`]. The argument of `flush` is its time limit.
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

    /// A token that is cancelled when a phase starts.
    pub fn token(&self, phase: Phase) -> CancellationToken {
        let token = CancellationToken::new();
        let cancel = token.clone();
        self.on(phase, "token", async move { cancel.cancel() });
        token
    }

    /// Waits until the drain begins, runs the phases in order, then waits for all tasks. Returns when everything has
    /// finished or the limit has passed.
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
                tracing::warn!(
                    limit = ?self.drain.limit(),
                    tasks = self.tasks.len(),
                    "shutdown exceeded its limit; dropping the remaining tasks"
                );
                self.drain.end();
            }
            () = self.drain.ended() => tracing::warn!("stopped immediately"),
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
    async fn p9_phases_run_in_order_independent_of_the_order_of_registration() {
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
    async fn the_limit_ends_a_phase_that_hangs() {
        let shutdown = Shutdown::new(Duration::from_secs(3));
        shutdown.on(Phase::Flush, "hangs", std::future::pending());
        shutdown.drain().begin("test");
        let start = Instant::now();
        shutdown.run().await;
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        shutdown.drain().ended().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_immediate_stop_skips_the_remaining_phases() {
        let shutdown = Shutdown::new(Duration::from_secs(30));
        shutdown.on(Phase::Flush, "hangs", std::future::pending());
        shutdown.drain().end();
        let start = Instant::now();
        shutdown.run().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
