//! What comes out of the state machine.

use crate::outbox::SendId;
use abi::{
    ApiError,
    v1::{Hello, Send, client_frame::Frame},
};

/// The next step of the connection.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Check the token, register the connection, send welcome; then call `Protocol::welcomed`.
    Authenticate(u32, Hello),
    /// Check and log a message, then call `Protocol::sent`. It is in flight until `Protocol::written`.
    Send(SendId, Send),
    /// Answer a request, then call `Protocol::answered`.
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

/// A request that the backend answers: the frame of the device. Neither `hello` nor a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Request(pub Frame);

impl Request {
    /// Whether it is a heartbeat.
    pub fn is_ping(&self) -> bool {
        matches!(self.0, Frame::Ping(_))
    }

    /// The name of a request that is useless without its answer.
    pub(super) fn needs_answer(&self) -> Option<&'static str> {
        match self.0 {
            Frame::Changes(_) => Some("changes"),
            Frame::Heads(_) => Some("heads"),
            Frame::History(_) => Some("history"),
            Frame::Readers(_) => Some("readers"),
            Frame::Blocks(_) => Some("blocks"),
            Frame::Profiles(_) => Some("profiles"),
            _ => None,
        }
    }

    /// Bytes that it occupies while it waits, about.
    pub(super) fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }
}
