//! The errors of this crate.

use abi::ApiError;
use std::time::Duration;

/// Why a call failed. Redis may have executed a failed call or a part of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured URL is not valid. The message omits it because it may contain a password.
    #[error("redis.url: must be redis://[:PASSWORD@]HOST:PORT[/DB], or rediss:// for TLS")]
    Url,
    /// The CA file is not valid.
    #[error("redis.ca: {path} {reason}")]
    Ca {
        /// The configured path.
        path: String,
        /// The reason, as the end of the sentence.
        reason: String,
    },
    /// The connection to Redis failed.
    #[error("cannot connect to redis for {call}: {reason}")]
    Connect {
        /// The call.
        call: &'static str,
        /// Why.
        reason: String,
    },
    /// Redis returned an error, or the connection broke.
    #[cfg(feature = "redis")]
    #[error("redis failed during {call}")]
    Redis {
        /// The call.
        call: &'static str,
        /// The error of Redis or of the connection.
        source: deadpool_redis::redis::RedisError,
    },
    /// Redis did not respond in time.
    #[error("redis did not answer {call} within {deadline:?}")]
    Timeout {
        /// The call.
        call: &'static str,
        /// The time limit.
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
