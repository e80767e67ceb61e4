//! Ownership of tasks.

use super::Drain;
use futures_util::FutureExt as _;
use std::{
    any::Any,
    fmt,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// The output of a task: nothing, or a result whose error is the reason of a failure.
pub trait Outcome {
    /// The reason, if the task failed.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: fmt::Display> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        // The alternate form of an anyhow error has the whole chain of causes.
        self.err().map(|error| format!("{error:#}"))
    }
}

/// Owns tasks: logs failures, begins the drain when a critical task ends, and waits for all tasks to finish. Clones
/// share one state.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    drain: Drain,
    failed: Arc<AtomicBool>,
}

impl Tasks {
    /// An owner without tasks. A critical task that ends begins `drain`; the end of `drain` drops all tasks.
    pub fn new(drain: Drain) -> Self {
        Self { tracker: TaskTracker::new(), drain, failed: Arc::default() }
    }

    /// The drain of these tasks.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Spawns a task that the process can run without. If it fails or panics, the error is logged.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.run(name, false, task);
    }

    /// Spawns a task that the process needs. If it ends for any reason before the drain has begun, the drain begins.
    pub fn spawn_critical<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        self.run(name, true, task);
    }

    fn run<F>(&self, name: &'static str, critical: bool, task: F)
    where
        F: Future<Output: Outcome> + Send + 'static,
    {
        let Self { drain, failed, .. } = self.clone();
        crate::metrics::task(name);
        let task = AssertUnwindSafe(task).catch_unwind();
        self.tracker.spawn(
            async move {
                let failure = tokio::select! {
                    biased;
                    () = drain.ended() => return tracing::warn!(name, "task dropped at the end of the drain"),
                    ended = task => match ended {
                        Ok(outcome) => outcome.failure(),
                        Err(panic) => Some(format!("panicked: {}", panic_text(&*panic))),
                    },
                };
                if let Some(reason) = &failure {
                    crate::metrics::task_failed(name);
                    tracing::error!(name, reason, "task failed");
                }
                if critical && (failure.is_some() || !drain.is_begun()) {
                    failed.store(true, Ordering::Relaxed);
                    drain.begin(failure.unwrap_or_else(|| format!("the task {name} ended unexpectedly")));
                }
            }
            .in_current_span(),
        );
    }

    /// Whether a critical task failed, or ended before the drain had begun.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Number of running tasks.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is running.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Waits until every task has ended. It does not stop the tasks: signal them first.
    pub async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn tasks() -> Tasks {
        Tasks::new(Drain::new(Duration::from_secs(5)))
    }

    #[tokio::test]
    async fn a_failed_task_does_not_begin_the_drain() {
        let tasks = tasks();
        tasks.spawn("fails", async { Err::<(), _>("unavailable") });
        tasks.spawn("panics", async {
            if true {
                panic!("oh")
            }
        });
        tasks.join().await;
        assert!(!tasks.drain().is_begun());
        assert!(!tasks.failed());
    }

    #[tokio::test]
    async fn a_critical_task_that_panics_begins_the_drain() {
        let tasks = tasks();
        tasks.spawn_critical("panics", async {
            if true {
                panic!("oh {}", 1)
            }
        });
        tasks.drain().begun().await;
        assert_eq!(tasks.drain().reason(), "panicked: oh 1");
        assert!(tasks.failed());
    }

    #[tokio::test]
    async fn a_critical_task_may_end_once_the_drain_has_begun() {
        let tasks = tasks();
        let token = tasks.drain().token();
        tasks.spawn_critical("server", async move { token.cancelled().await });
        tasks.drain().begin("test");
        tasks.join().await;
        assert!(!tasks.failed());
    }

    #[tokio::test]
    async fn the_end_of_the_drain_drops_running_tasks() {
        let tasks = tasks();
        tasks.spawn("hangs", std::future::pending::<()>());
        assert_eq!(tasks.len(), 1);
        tasks.drain().end();
        tasks.join().await;
        assert!(tasks.is_empty());
    }
}
