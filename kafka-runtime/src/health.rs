//! The health of a log, for readiness checks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the brokers or the disk respond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// There has been no response yet.
    Starting,
    /// The last request succeeded.
    Ready,
    /// The last request failed.
    Failing {
        /// The cause, worded for an operator; holds no secrets.
        reason: String,
    },
}

impl Health {
    /// `Ok` when ready, otherwise the reason: for readiness probes.
    ///
    /// # Errors
    /// Why the log can't be used now, in words for an operator.
    pub fn into_result(self) -> Result<(), String> {
        match self {
            Self::Ready => Ok(()),
            Self::Starting => Err("no broker has answered yet".into()),
            Self::Failing { reason } => Err(reason),
        }
    }
}

/// The current [`Health`], shared by the tasks that observe it. Setting "ready" again costs one atomic load.
#[derive(Debug)]
pub(crate) struct HealthCell {
    ready: AtomicBool,
    state: Mutex<Health>,
}

impl HealthCell {
    pub(crate) fn new(state: Health) -> Self {
        Self { ready: AtomicBool::new(state == Health::Ready), state: Mutex::new(state) }
    }

    pub(crate) fn get(&self) -> Health {
        self.lock().clone()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn ready(&self) {
        if !self.is_ready() {
            let mut state = self.lock();
            *state = Health::Ready;
            self.ready.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn failing(&self, reason: String) {
        let mut state = self.lock();
        *state = Health::Failing { reason };
        self.ready.store(false, Ordering::Relaxed);
    }

    /// Like [`failing`](Self::failing), but keeps an existing reason, which is more specific.
    #[cfg(feature = "kafka")]
    pub(crate) fn failing_unless_known(&self, reason: &str) {
        if !matches!(*self.lock(), Health::Failing { .. }) {
            self.failing(reason.to_owned());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Health> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
