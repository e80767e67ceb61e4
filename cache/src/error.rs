//! What can go wrong.

use abi::ApiError;
use std::time::Duration;

/// Why a call failed. Nothing of a failed call can be relied on, and it may have been done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured URL can't be used. It is not shown: it may hold a password.
    #[error("redis.url: must be redis://[:PASSWORD@]HOST:PORT[/DB], or rediss:// for TLS")]
    Url,
    /// The file of authorities can't be used.
    #[error("redis.ca: {path} {reason}")]
    Ca {
        /// As configured.
        path: String,
        /// The end of the sentence.
        reason: String,
    },
    /// No connection to Redis could be had.
    #[error("redis can't be reached for {call}: {reason}")]
    Connect {
        /// The call.
        call: &'static str,
        /// Why.
        reason: String,
    },
    /// Redis refused a command or went away.
    #[error("redis failed at {call}")]
    Redis {
        /// The call.
        call: &'static str,
        /// What Redis or the connection said.
        source: deadpool_redis::redis::RedisError,
    },
    /// There was no answer in time.
    #[error("redis did not answer {call} within {deadline:?}")]
    Timeout {
        /// The call.
        call: &'static str,
        /// The time it had.
        deadline: Duration,
    },
}

impl Error {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Url | Self::Ca { .. })
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::unavailable(error.to_string())
    }
}
