//! Limits, times and policies of a consumer.

use crate::backoff::Backoff;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// Limits, times and policies of a [`Consumer`](super::Consumer).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsumerConfig {
    /// Most records of a batch; with [`Ordering::Key`], most records of a partition that are in flight or wait for an older one
    /// of their key. 1,000 by default.
    pub max_records: usize,
    /// Most bytes of a batch; one larger record makes a batch of its own. 1 MiB by default.
    pub max_bytes: usize,
    /// How long a batch may wait to become full. 0, the default, takes what has queued up while the last one was in
    /// flight: no latency is added, and under load batches are large all the same.
    pub batch_wait: Duration,
    /// What happens after a failure.
    pub retry: RetryPolicy,
    /// What is kept in order.
    pub ordering: Ordering,
    /// Offsets are committed about this often. 1 s by default.
    pub commit_interval: Duration,
    /// A commit with its hook may take so long. 5 s by default.
    pub commit_timeout: Duration,
    /// On revoke and on drain, what is in flight may take so long to finish; then it is abandoned and will be delivered
    /// again. 5 s by default.
    pub finish_timeout: Duration,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            max_records: 1_000,
            max_bytes: 1 << 20,
            batch_wait: Duration::ZERO,
            retry: RetryPolicy::default(),
            ordering: Ordering::Partition,
            commit_interval: Duration::from_secs(1),
            commit_timeout: Duration::from_secs(5),
            finish_timeout: Duration::from_secs(5),
        }
    }
}

/// How often what failed is tried, and how long to wait in between. By default for ever: an outage loses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RetryPolicy {
    /// After so many failed attempts a record goes to the dead letters, with the last error as the reason; `None`: it is tried
    /// for ever. Of a batch whose attempts are used up each record gets one more attempt alone, so that only the bad ones go.
    pub attempts: Option<NonZeroU32>,
    /// The waits between attempts.
    pub backoff: Backoff,
}

impl RetryPolicy {
    /// Whether there is no attempt left after the `attempt`-th, counted from 1.
    pub(crate) fn is_used_up(&self, attempt: u32) -> bool {
        self.attempts.is_some_and(|most| attempt >= most.get())
    }
}

/// What is kept in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// All records of a partition, one after the other.
    #[default]
    Partition,
    /// The records of each key. Records of different keys run at the same time, also within a partition; one that
    /// fails holds back its key only. Offsets are committed up to the oldest record that is not done, so more is delivered
    /// again after a crash. For handlers of [records](super::Consumer::records); batches are always in partition order.
    Key {
        /// Most records of one partition that are being handled at the same time.
        concurrency: NonZeroUsize,
    },
}
