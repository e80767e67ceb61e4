//! Whether this process should get work: one latch per dependency, all of them open at first.

use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const NOT_YET: &str = "has not answered yet";

/// All latches of a process. A clone is the same set.
///
/// Ready means: at least one latch, every latch set, and no drain. So a process that has not yet named its
/// dependencies is not ready by mistake.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    draining: bool,
    /// Name of the dependency; why it is missing, or `None` when it is there.
    latches: BTreeMap<String, Option<String>>,
}

impl State {
    fn is_ready(&self) -> bool {
        !self.draining && !self.latches.is_empty() && self.latches.values().all(Option::is_none)
    }
}

impl Readiness {
    /// No latch yet, so not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The latch of a dependency, not set at first. Two latches of one name are the same latch.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let name = name.into();
        self.state.send_modify(|state| {
            state.latches.entry(name.clone()).or_insert_with(|| Some(NOT_YET.to_owned()));
        });
        Latch { name, state: self.state.clone() }
    }

    /// From now on not ready, whatever the latches say.
    pub fn begin_drain(&self) {
        self.state.send_modify(|state| state.draining = true);
    }

    /// Whether work is welcome.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Every latch by name, with the reason where it is missing; `drain` is among them when draining.
    pub fn report(&self) -> BTreeMap<String, Option<String>> {
        let state = self.state.borrow();
        let mut report = state.latches.clone();
        if state.draining {
            report.insert("drain".to_owned(), Some("this instance is stopping".to_owned()));
        }
        report
    }

    /// Returns when ready.
    pub async fn ready(&self) {
        self.wait_for(State::is_ready).await;
    }

    /// Calls `tell` with the present state, and with every change of it, for ever.
    pub async fn follow<F: Future<Output = ()>>(&self, mut tell: impl FnMut(bool) -> F) {
        loop {
            let now = self.is_ready();
            tell(now).await;
            self.wait_for(|state| state.is_ready() != now).await;
        }
    }

    async fn wait_for(&self, holds: impl FnMut(&State) -> bool) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so the channel can't be closed here.
        state.wait_for(holds).await.map(|_| ()).unwrap_or_default();
    }
}

/// Says whether one dependency is there. A clone is the same latch.
#[derive(Clone, Debug)]
pub struct Latch {
    name: String,
    state: Arc<watch::Sender<State>>,
}

impl Latch {
    /// The dependency has answered.
    pub fn ready(&self) {
        self.put(None);
    }

    /// The dependency is away, for the given reason.
    pub fn unready(&self, reason: impl Into<String>) {
        self.put(Some(reason.into()));
    }

    /// [`Latch::ready`], or not ready without a particular reason.
    pub fn set(&self, ready: bool) {
        self.put((!ready).then(|| "is away".to_owned()));
    }

    /// Asks a dependency again and again, until `stop`, and says what came of it. An error is the reason.
    pub async fn probe<F>(self, every: Duration, stop: CancellationToken, mut ask: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), String>>,
    {
        while !stop.is_cancelled() {
            match ask().await {
                Ok(()) => self.ready(),
                Err(reason) => self.unready(reason),
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn put(&self, missing: Option<String>) {
        let changed = self.state.send_if_modified(|state| {
            let old = state.latches.insert(self.name.clone(), missing.clone());
            old.as_ref() != Some(&missing)
        });
        if changed {
            match missing {
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

    #[tokio::test]
    async fn waiting_ends_with_the_last_latch() {
        let readiness = Readiness::new();
        let latch = readiness.latch("log");
        let (_, ()) = tokio::join!(readiness.ready(), async { latch.ready() });
        assert!(readiness.is_ready());
    }
}
