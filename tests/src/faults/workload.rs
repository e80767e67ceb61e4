//! Users with several devices who talk while everything around them dies, and write down what they see.

use super::ledger::Ledger;
use anyhow::Result;
use std::time::{Duration, Instant};

/// How much is going on. The default is for the distributed system.
#[derive(Clone, Debug)]
pub struct Options {
    /// Messages per second that are begun in all.
    pub rate: f64,
    /// Users beside those that probe.
    pub users: usize,
    /// Groups with a stable membership, and as many again whose members come and go.
    pub groups: usize,
    /// Partitions of the topic of messages.
    pub partitions: u32,
    /// Longest wait of [`Workload::probe`].
    pub probe_patience: Duration,
    /// Longest wait of [`Workload::finish`].
    pub finish_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate: 250.0,
            users: 24,
            groups: 6,
            partitions: 4,
            probe_patience: Duration::from_secs(120),
            finish_patience: Duration::from_secs(300),
        }
    }
}

/// A running workload.
#[derive(Debug)]
pub struct Workload {}

impl Workload {
    /// Makes users, devices and groups, and begins to send.
    ///
    /// # Errors
    /// If the system, which should be well at that time, refuses one of them.
    pub async fn start(_seed: u64, _gateways: Vec<String>, _options: Options) -> Result<Self> {
        Ok(Self {})
    }

    /// Sends a message through every gateway to every partition, and waits until all have arrived at devices at every
    /// gateway. Tries again until it works, so it measures how long the system needs to be well again.
    ///
    /// # Errors
    /// If it does not within [`Options::probe_patience`].
    pub async fn probe(&self) -> Result<Duration> {
        Ok(Duration::ZERO)
    }

    /// Messages acknowledged so far.
    pub fn acked(&self) -> u64 {
        0
    }

    /// The longest time since then that a device, which was meant to be online, waited for an acknowledgement, or is
    /// waiting now.
    pub fn longest_pause_since(&self, _begin: Instant) -> Duration {
        Duration::ZERO
    }

    /// Ends: no more is sent, every device comes online, everything that waits gets its outcome, everybody catches up
    /// and reads the histories. What does not within [`Options::finish_patience`] is in [`Ledger::unfinished`].
    ///
    /// # Errors
    /// If the suite itself fails.
    pub async fn finish(self) -> Result<Ledger> {
        Ok(Ledger::default())
    }
}
