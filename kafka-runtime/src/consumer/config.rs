//! Limits, timeouts and policies of a consumer.

use crate::backoff::Backoff;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

/// Limits, timeouts and policies of a [`Consumer`](super::Consumer).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsumerConfig {
    /// Maximum records of a batch. With [`Ordering::Key`]: maximum records of a partition that are in flight or wait for an older
    /// record of their key. 1,000 by default.
    pub max_records: usize,
    /// Maximum bytes of a batch. A larger record is a batch by itself. 1 MiB by default.
    pub max_bytes: usize,
    /// How long to wait for a batch to fill up. With 0, the default, a batch contains the records that were queued while the
    /// previous one was in flight. That adds no latency, and batches still grow under load.
    pub batch_wait: Duration,
    /// The reaction to a failure.
    pub retry: RetryPolicy,
    /// The scope of the order.
    pub ordering: Ordering,
    /// Interval between offset commits. 1 s by default.
    pub commit_interval: Duration,
    /// Time limit of a commit and its hook. 5 s by default.
    pub commit_timeout: Duration,
    /// Time limit for the records in flight on a revocation and on shutdown. Records that exceed it are abandoned and will be
    /// delivered again. 5 s by default.
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

/// The number of attempts, and the backoff between them. By default attempts are unlimited, so an outage loses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RetryPolicy {
    /// Failed attempts after which a record is dead-lettered, with the last error as the reason; `None` for no limit. After
    /// the last attempt of a batch each of its records gets one more attempt alone, so only the bad ones are dead-lettered.
    pub attempts: Option<NonZeroU32>,
    /// The wait between attempts.
    pub backoff: Backoff,
}

impl RetryPolicy {
    /// Whether the given attempt, counted from 1, is the last one.
    pub(crate) fn is_exhausted(&self, attempt: u32) -> bool {
        self.attempts.is_some_and(|limit| attempt >= limit.get())
    }
}

/// The scope within which records are handled in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// All records of a partition are handled one after the other.
    #[default]
    Partition,
    /// The records of each key are handled one after the other. Records of different keys run concurrently, also within a
    /// partition. A failing record blocks only its key. Offsets are committed up to the oldest unfinished record, so a crash
    /// redelivers more records. Only for handlers of [records](super::Consumer::records); batches are always in partition
    /// order.
    Key {
        /// Maximum records of one partition that are handled concurrently.
        concurrency: NonZeroUsize,
    },
}
