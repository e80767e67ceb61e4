//! Settings that an address has for consumers of either backend.

use super::Address;
use super::values::size;
use crate::backoff::Backoff;
use crate::consumer::{ConsumerConfig, Ordering, RetryPolicy};
use crate::error::Error;
use crate::source::InitialOffset;
use std::num::NonZeroUsize;
use std::time::Duration;

impl Address {
    /// Limits, timeouts and policies of a consumer.
    pub fn consumer_config(&self) -> ConsumerConfig {
        let settings = &self.settings;
        ConsumerConfig {
            max_records: settings.batch_records,
            max_bytes: size(settings.batch_bytes),
            batch_wait: settings.batch_wait,
            retry: RetryPolicy {
                attempts: settings.retry_attempts,
                backoff: Backoff {
                    first: settings.retry_first,
                    max: settings.retry_max,
                    jitter: settings.retry_jitter,
                },
            },
            ordering: match settings.ordering {
                "key" => Ordering::Key {
                    concurrency: NonZeroUsize::new(settings.concurrency).unwrap_or(NonZeroUsize::MIN),
                },
                _ => Ordering::Partition,
            },
            commit_interval: settings.commit_interval,
            commit_timeout: settings.commit_timeout,
            finish_timeout: settings.finish_timeout,
        }
    }

    /// Where the group starts in partitions for which it has no committed offset.
    pub fn initial_offset(&self) -> InitialOffset {
        self.settings.offset
    }

    /// Time limit for the checks before the start.
    pub fn start_timeout(&self) -> Duration {
        self.settings.start_timeout
    }

    /// The group and the topics, which a consumer needs.
    pub(crate) fn subscription(&self) -> Result<(&str, &[String]), Error> {
        let mut errors = Vec::new();
        if self.settings.topics.is_empty() {
            errors.push("a consumer needs `topics`".to_owned());
        }
        if self.settings.group.is_none() {
            errors.push("a consumer needs a `group`".to_owned());
        }
        match &self.settings.group {
            Some(group) if errors.is_empty() => Ok((group, &self.settings.topics)),
            _ => Err(Error::Address { errors }),
        }
    }

    pub(crate) fn reads_uncommitted(&self) -> bool {
        self.settings.isolation == "read_uncommitted"
    }
}
