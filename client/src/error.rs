//! The error type, and whether a retry can help.

use abi::{
    ApiError,
    error::{ErrorCode, Reconnect},
};
use std::{io, sync::Arc, time::Duration};

/// Every error of this crate. Cheap to clone: a lost connection fails all pending requests.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server refused the request.
    #[error("{0}")]
    Server(#[from] ApiError),
    /// The address of the server is invalid.
    #[error("{url} is not a usable server address: {reason}")]
    Address {
        /// The address as given.
        url: String,
        /// The reason.
        reason: &'static str,
    },
    /// The file of certificate authorities cannot be used.
    #[error("cannot use the certificate authorities in {path}: the file {reason}")]
    Authorities {
        /// The path as given.
        path: String,
        /// The reason; continues the sentence.
        reason: String,
    },
    /// No connection to the address.
    #[error("cannot reach {address}: {source}")]
    Connect {
        /// `host:port`.
        address: String,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// No answer in time.
    #[error("{what} was not answered in time")]
    Timeout {
        /// The request or phase.
        what: &'static str,
    },
    /// The server closed the connection with a reason.
    #[error("the server closed the connection: {reason}")]
    Closed {
        /// The error code; `None` for close codes outside the contract.
        code: Option<ErrorCode>,
        /// Whether and when to connect again.
        reconnect: Reconnect,
        /// The text of the reason, or the close code.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The peer does not speak the protocol.
    #[error("not an answer of a godwit server: {0}")]
    Protocol(String),
    /// The storage of tokens failed.
    #[error("{0}")]
    Store(String),
    /// The client was stopped, or has ended with an error that [`crate::Event::Ended`] reports.
    #[error("the client has stopped")]
    Stopped,
}

/// The recovery from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// None: a person has to act.
    Stop,
    /// Get a new access token.
    Refresh,
    /// Try again, after the pause if the server asked for one.
    Retry(Option<Duration>),
}

impl Error {
    /// The recovery from this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Server(error) if error.code == ErrorCode::TokenExpired => Recovery::Refresh,
            Self::Closed { code: Some(ErrorCode::TokenExpired), .. } => Recovery::Refresh,
            Self::Server(error) => match (error.retry_after, error.code.reconnect()) {
                (_, Reconnect::No) => Recovery::Stop,
                (Some(wait), _) => Recovery::Retry(Some(wait)),
                (None, Reconnect::Now) => Recovery::Retry(None),
                (None, Reconnect::After(ms)) => Recovery::Retry(Some(Duration::from_millis(ms.into()))),
            },
            Self::Closed { reconnect: Reconnect::No, .. } => Recovery::Stop,
            Self::Closed { reconnect: Reconnect::After(ms), .. } => {
                Recovery::Retry(Some(Duration::from_millis((*ms).into())))
            }
            Self::Closed { reconnect: Reconnect::Now, .. }
            | Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Lost(_)
            | Self::Protocol(_) => Recovery::Retry(None),
            Self::Address { .. } | Self::Authorities { .. } | Self::Store(_) | Self::Stopped => {
                Recovery::Stop
            }
        }
    }

    /// The error code, if the server sent one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Server(error) => Some(error.code),
            Self::Closed { code, .. } => *code,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_token_is_refreshed_and_an_invalid_one_is_not() {
        let expired = Error::Server(ApiError::new(ErrorCode::TokenExpired, "expired"));
        let wrong = Error::Server(ApiError::new(ErrorCode::Unauthenticated, "wrong"));
        assert_eq!(expired.recovery(), Recovery::Refresh);
        assert_eq!(wrong.recovery(), Recovery::Stop);
    }

    #[test]
    fn a_retry_waits_as_long_as_the_server_asked() {
        let wait = Duration::from_millis(1_700);
        assert_eq!(
            Error::Server(ApiError::rate_limited("slow down", wait)).recovery(),
            Recovery::Retry(Some(wait))
        );
    }
}
