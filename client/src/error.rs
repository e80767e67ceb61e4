//! What can go wrong, and whether to try again.

use abi::{
    ApiError,
    error::{ErrorCode, Reconnect},
};
use std::{io, sync::Arc, time::Duration};

/// Every error of this crate. Cheap to clone: one lost connection is told to all who wait.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server said no.
    #[error("{0}")]
    Server(#[from] ApiError),
    /// The address of the server can't be used.
    #[error("{url} is not a usable server address: {reason}")]
    Address {
        /// As it was given.
        url: String,
        /// Why not.
        reason: &'static str,
    },
    /// The file of authorities can't be used.
    #[error("the authorities in {path} can't be used: it {reason}")]
    Authorities {
        /// As it was given.
        path: String,
        /// The end of the sentence.
        reason: String,
    },
    /// Nobody answers at the address.
    #[error("cannot reach {address}: {source}")]
    Connect {
        /// `host:port`.
        address: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No answer within the time allowed.
    #[error("{what} was not answered in time")]
    Timeout {
        /// What was asked.
        what: &'static str,
    },
    /// The server closed the connection with a reason.
    #[error("the server closed the connection: {reason}")]
    Closed {
        /// The reason's code; `None` for codes that are not of the contract.
        code: Option<ErrorCode>,
        /// Whether and when to connect again.
        reconnect: Reconnect,
        /// The reason's text, or the code as text.
        reason: String,
    },
    /// The connection broke.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The peer does not speak the protocol.
    #[error("not an answer of a godwit server: {0}")]
    Protocol(String),
    /// A place to keep something could not be used.
    #[error("{0}")]
    Store(String),
    /// The client was stopped, or has ended with an error that its events told.
    #[error("the client has stopped")]
    Stopped,
}

/// What helps after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing that a program can do by itself.
    Stop,
    /// A new access token.
    Refresh,
    /// The same again, after a pause where one is named.
    Retry(Option<Duration>),
}

impl Error {
    /// What helps after this error.
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Server(fault) if fault.code == ErrorCode::TokenExpired => Recovery::Refresh,
            Self::Closed { code: Some(ErrorCode::TokenExpired), .. } => Recovery::Refresh,
            Self::Server(fault) => match (fault.retry_after, fault.code.reconnect()) {
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

    /// The error code, where the server gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Server(fault) => Some(fault.code),
            Self::Closed { code, .. } => *code,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_token_is_refreshed_and_a_wrong_one_is_not() {
        let expired = Error::Server(ApiError::new(ErrorCode::TokenExpired, "expired"));
        let wrong = Error::Server(ApiError::new(ErrorCode::Unauthenticated, "wrong"));
        assert_eq!(expired.recovery(), Recovery::Refresh);
        assert_eq!(wrong.recovery(), Recovery::Stop);
    }

    #[test]
    fn the_servers_time_to_wait_is_honoured() {
        let wait = Duration::from_millis(1_700);
        assert_eq!(
            Error::Server(ApiError::rate_limited("slow down", wait)).recovery(),
            Recovery::Retry(Some(wait))
        );
    }
}
