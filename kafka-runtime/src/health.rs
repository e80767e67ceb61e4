//! Whether what lies behind answers, for readiness.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether brokers (or the disk) answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known yet.
    Starting,
    /// They answered last time.
    Ready,
    /// They did not.
    Failing {
        /// Why, in words for an operator; holds no secrets.
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

/// The current [`Health`], written by whoever sees evidence. Saying "ready" again costs one load.
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

    /// Like [`failing`](Self::failing), but a reason that is already there is kept: it says more.
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
