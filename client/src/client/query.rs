//! Requests other than sends, and the replies to their callers.

use crate::Error;
use abi::{
    ApiError,
    v1::{client_frame::Frame as Ask, server_frame::Frame},
};
use tokio::sync::oneshot;

/// A request other than a send.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) ask: Ask,
    reply: oneshot::Sender<Result<Frame, Error>>,
}

impl Query {
    /// A query, and the receiver of its answer.
    pub(super) fn new(ask: Ask) -> (Self, oneshot::Receiver<Result<Frame, Error>>) {
        let (reply, answer) = oneshot::channel();
        (Self { ask, reply }, answer)
    }

    /// Whether the query is repeated on the next connection if this one ends. A signal would be late by then.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self.ask, Ask::Signal(_))
    }

    /// Replies with the answer of the server.
    pub(super) fn answer(self, frame: Frame) {
        let answer = match frame {
            Frame::Error(error) => Err(ApiError::from(error).into()),
            frame => Ok(frame),
        };
        let _ = self.reply.send(answer);
    }

    /// Replies with an error.
    pub(super) fn fail(self, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

/// The error for an answer of another kind than the request needs.
pub(super) fn unexpected() -> ApiError {
    ApiError::invalid("the answer does not fit the request")
}
