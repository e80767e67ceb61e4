//! Whether this process should receive work: one latch per dependency, none of them set at first.

use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const NOT_YET: &str = "has not answered yet";

/// All latches of a process. Clones share one state.
///
/// A process is ready when it has at least one latch, all latches are set, and no drain has begun. A process that has
/// not yet named its dependencies is therefore not ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    draining: bool,
    /// By name of the dependency: the reason why it is not ready, or `None` when it is.
    latches: BTreeMap<String, Option<String>>,
    /// By name of the dependency: a failure that leaves the process able to work.
    warnings: BTreeMap<String, String>,
}

impl State {
    fn is_ready(&self) -> bool {
        !self.draining && !self.latches.is_empty() && self.latches.values().all(Option::is_none)
    }
}

impl Readiness {
    /// A readiness without latches: not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The latch of a dependency, not set at first. Latches of the same name share one state.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let name = name.into();
        self.state.send_modify(|state| {
            state.latches.entry(name.clone()).or_insert_with(|| Some(NOT_YET.to_owned()));
        });
        Latch { name, state: self.state.clone() }
    }

    /// Sets or removes a warning about a dependency, which does not make the process not ready.
    pub fn warn(&self, name: &str, warning: Option<String>) {
        let changed = self.state.send_if_modified(|state| {
            let old = match &warning {
                Some(warning) => state.warnings.insert(name.to_owned(), warning.clone()),
                None => state.warnings.remove(name),
            };
            old != warning
        });
        if changed {
            match warning {
                Some(warning) => tracing::warn!(dependency = name, warning, "dependency works only in part"),
                None => tracing::info!(dependency = name, "dependency works again"),
            }
        }
    }

    /// All warnings by name of their dependency.
    pub fn warnings(&self) -> BTreeMap<String, String> {
        self.state.borrow().warnings.clone()
    }

    /// Makes the process permanently not ready, independent of its latches.
    pub fn begin_drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Whether the process should receive work.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// All latches by name, each with the reason if it is not set. During a drain there is an entry `drain`.
    pub fn report(&self) -> BTreeMap<String, Option<String>> {
        let state = self.state.borrow();
        let mut report = state.latches.clone();
        if state.draining {
            report.insert("drain".to_owned(), Some("this instance is stopping".to_owned()));
        }
        report
    }

    /// Waits until the process is ready.
    pub async fn ready(&self) {
        self.wait_for(State::is_ready).await;
    }

    /// Calls `report` with the current state and after every change. Never returns.
    pub async fn follow<F: Future<Output = ()>>(&self, mut report: impl FnMut(bool) -> F) {
        loop {
            let now = self.is_ready();
            report(now).await;
            self.wait_for(|state| state.is_ready() != now).await;
        }
    }

    async fn wait_for(&self, holds: impl FnMut(&State) -> bool) {
        let mut state = self.state.subscribe();
        // `self` holds the sender, so the channel is open.
        state.wait_for(holds).await.map(|_| ()).unwrap_or_default();
    }
}

/// Tracks whether one dependency is ready. Clones share one state.
#[derive(Clone, Debug)]
pub struct Latch {
    name: String,
    state: Arc<watch::Sender<State>>,
}

impl Latch {
    /// Sets the latch: the dependency has answered.
    pub fn ready(&self) {
        self.update(None);
    }

    /// Clears the latch: the dependency is unavailable for the given reason.
    pub fn unready(&self, reason: impl Into<String>) {
        self.update(Some(reason.into()));
    }

    /// [`Latch::ready`], or [`Latch::unready`] with a generic reason.
    pub fn set(&self, ready: bool) {
        self.update((!ready).then(|| "is unavailable".to_owned()));
    }

    /// Checks a dependency at an interval until `stop`, and sets or clears the latch. An error is the reason.
    pub async fn probe<F>(self, every: Duration, stop: CancellationToken, mut check: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), String>>,
    {
        while !stop.is_cancelled() {
            match check().await {
                Ok(()) => self.ready(),
                Err(reason) => self.unready(reason),
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn update(&self, not_ready: Option<String>) {
        let changed = self.state.send_if_modified(|state| {
            let old = state.latches.insert(self.name.clone(), not_ready.clone());
            old.as_ref() != Some(&not_ready)
        });
        if changed {
            match not_ready {
                None => tracing::info!(dependency = %self.name, "dependency ready"),
                Some(reason) => tracing::warn!(dependency = %self.name, reason, "dependency not ready"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_ready_until_every_latch_is_set() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready(), "without latches");
        let kafka = readiness.latch("kafka");
        let redis = readiness.latch("redis");
        kafka.ready();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.report()["redis"].as_deref(), Some(NOT_YET));
        redis.set(true);
        assert!(readiness.is_ready());
        kafka.unready("no broker");
        assert_eq!(readiness.report()["kafka"].as_deref(), Some("no broker"));
        assert!(!readiness.is_ready());
    }

    #[test]
    fn p9_a_draining_process_is_not_ready() {
        let readiness = Readiness::new();
        readiness.latch("kafka").ready();
        readiness.begin_drain();
        assert!(!readiness.is_ready());
        assert!(readiness.report().contains_key("drain"));
    }

    #[test]
    fn a_warning_does_not_make_a_process_not_ready() {
        let readiness = Readiness::new();
        readiness.latch("postgres").ready();
        readiness.warn("postgres", Some("the disk is full".into()));
        assert!(readiness.is_ready());
        assert_eq!(readiness.warnings()["postgres"], "the disk is full");
        readiness.warn("postgres", None);
        assert!(readiness.warnings().is_empty());
    }

    #[tokio::test]
    async fn ready_returns_once_the_last_latch_is_set() {
        let readiness = Readiness::new();
        let latch = readiness.latch("log");
        let (_, ()) = tokio::join!(readiness.ready(), async { latch.ready() });
        assert!(readiness.is_ready());
    }
}
