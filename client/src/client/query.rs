//! Requests other than sends: the frame of each, and the reply to its caller.

use crate::Error;
use abi::{
    ApiError,
    v1::{
        GetHeads, GetHistory, HeadsPage, HistoryPage, MarkRead, client_frame::Frame as Ask,
        server_frame::Frame,
    },
};
use tokio::sync::oneshot;

/// The sender for the reply to a caller.
type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A request other than a send.
#[derive(Debug)]
pub(super) enum Query {
    Heads(GetHeads, Reply<HeadsPage>),
    History(GetHistory, Reply<HistoryPage>),
    MarkRead(MarkRead, Reply<u64>),
}

impl Query {
    /// The frame to send.
    pub(super) fn frame(&self) -> Ask {
        match self {
            Self::Heads(request, _) => Ask::Heads(request.clone()),
            Self::History(request, _) => Ask::History(request.clone()),
            Self::MarkRead(request, _) => Ask::Read(request.clone()),
        }
    }

    /// Replies with the answer of the server. An answer of another kind fails the query.
    pub(super) fn answer(self, frame: Frame) {
        match (self, frame) {
            (Self::Heads(_, reply), Frame::Heads(page)) => drop(reply.send(Ok(page))),
            (Self::History(_, reply), Frame::History(page)) => drop(reply.send(Ok(page))),
            (Self::MarkRead(_, reply), Frame::Read(read)) => drop(reply.send(Ok(read.read_seq))),
            (query, Frame::Error(error)) => query.fail(ApiError::from(error).into()),
            (query, _) => query.fail(ApiError::invalid("the answer does not fit the request").into()),
        }
    }

    /// Replies with an error.
    pub(super) fn fail(self, error: Error) {
        match self {
            Self::Heads(_, reply) => drop(reply.send(Err(error))),
            Self::History(_, reply) => drop(reply.send(Err(error))),
            Self::MarkRead(_, reply) => drop(reply.send(Err(error))),
        }
    }
}
