//! The size of the workload.

use std::time::Duration;

/// The size of the workload. The defaults suit the distributed system.
#[derive(Clone, Debug)]
pub struct Options {
    /// Messages per second of all devices together.
    pub rate: f64,
    /// Disruptions of devices per second: a device goes offline, sleeps, or restarts.
    pub disruptions: f64,
    /// Users besides those that only probe, at least 8.
    pub users: usize,
    /// Groups with stable membership. There are as many again with changing membership.
    pub groups: usize,
    /// Partitions of the message topic.
    pub partitions: u32,
    /// Longest final phase, see [`Workload::finish`](super::Workload::finish).
    pub finish_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rate: 250.0,
            disruptions: 1.0,
            users: 24,
            groups: 6,
            partitions: 4,
            finish_timeout: Duration::from_secs(300),
        }
    }
}
