//! What comes out of the state machine.

use crate::outbox::SendId;
use abi::{
    ApiError,
    v1::{GetHeads, GetHistory, Hello, MarkRead, Send},
};
use prost::Message as _;

/// The next step of the connection.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Check the token, register the connection, send welcome; then call [`Protocol::welcomed`].
    Authenticate(u32, Hello),
    /// Check and log a message, then call [`Protocol::sent`]. It is in flight until [`Protocol::written`].
    Send(SendId, Send),
    /// Answer a request, then call [`Protocol::answered`].
    Answer(u32, Request),
    /// Answer with an error and continue.
    Refuse(u32, ApiError),
    /// Renew the route of the connection.
    Renew,
    /// Check that the account session is still valid.
    Recheck,
    /// Close the connection.
    Close(ApiError),
}

/// A request that the backend answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A page of heads.
    Heads(GetHeads),
    /// A page of history.
    History(GetHistory),
    /// Mark as read.
    Read(MarkRead),
    /// Heartbeat.
    Ping,
}

impl Request {
    /// Whether it is a heartbeat.
    pub fn is_ping(&self) -> bool {
        matches!(self, Self::Ping)
    }

    /// The name of a request that is useless without its answer.
    pub(super) fn needs_answer(&self) -> Option<&'static str> {
        match self {
            Self::Heads(_) => Some("heads"),
            Self::History(_) => Some("history"),
            Self::Read(_) | Self::Ping => None,
        }
    }

    /// Bytes that it occupies while it waits, about.
    pub(super) fn encoded_len(&self) -> usize {
        match self {
            Self::Heads(request) => request.encoded_len(),
            Self::History(request) => request.encoded_len(),
            Self::Read(request) => request.encoded_len(),
            Self::Ping => 0,
        }
    }
}
