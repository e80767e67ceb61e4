//! Outgoing frames, and the bytes that they occupy.

use crate::memory::Memory;
use abi::{ApiError, v1::Ack};
use axum::extract::ws::{Message, Utf8Bytes};
use bytes::Bytes;
use std::{mem, sync::Arc};
use utils::trace::Spans;

/// An encoded frame.
#[derive(Clone, Debug)]
pub struct Encoded {
    message: Message,
    /// Its bytes are counted once for all connections that share it.
    is_shared: bool,
}

impl Encoded {
    /// A frame for one connection.
    pub fn own(message: Message) -> Self {
        Self { message, is_shared: false }
    }

    /// A frame for several connections, each of which gets a clone.
    pub fn shared(message: Message, memory: &Arc<Memory>) -> Self {
        let message = match message {
            Message::Binary(bytes) => Message::Binary(memory.share(bytes)),
            Message::Text(text) => {
                let text = Utf8Bytes::try_from(memory.share(Bytes::from(text)));
                Message::Text(text.expect("these bytes were a text"))
            }
            control => return Self::own(control),
        };
        Self { message, is_shared: true }
    }

    /// The frame.
    pub fn message(&self) -> &Message {
        &self.message
    }

    fn len(&self) -> usize {
        match &self.message {
            Message::Binary(bytes) => bytes.len(),
            Message::Text(text) => text.len(),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => 0,
        }
    }
}

/// A send: the id of its frame, and its position among the sends of the connection, which is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendId {
    /// Id of the frame; 0 if the device wants no ack.
    pub id: u32,
    /// Position, from 1.
    pub number: u64,
}

/// A frame to write.
#[derive(Debug)]
pub enum Outgoing {
    /// A frame.
    Encoded(Encoded),
    /// A frame with entries.
    Delivery {
        /// The frame.
        frame: Encoded,
        /// When a gateway accepted the oldest of the entries, milliseconds since 1970-01-01 UTC.
        sent_at_ms: i64,
        /// Spans of the traced messages in it. They end when the frame is written.
        writing: Spans,
    },
    /// The answer to a `send`, which is then no longer in flight.
    Sent {
        /// The send.
        id: SendId,
        /// The ack, or the error.
        result: Result<Ack, ApiError>,
    },
    /// The refusal of a `send` that was already on its way to the log.
    Refused {
        /// The send.
        id: SendId,
        /// The error.
        error: ApiError,
    },
}

impl Outgoing {
    /// Bytes that it occupies in a queue, including bytes that it shares with others.
    pub fn size(&self) -> usize {
        let content = match self {
            Self::Encoded(frame) | Self::Delivery { frame, .. } => frame.len(),
            Self::Sent { result: Ok(ack), .. } => ack.message_id.len() + ack.client_msg_id.len(),
            Self::Sent { result: Err(error), .. } | Self::Refused { error, .. } => error.message.len(),
        };
        content + mem::size_of::<Self>()
    }

    /// Bytes that it occupies by itself.
    pub(super) fn own_size(&self) -> usize {
        match self {
            Self::Encoded(frame) | Self::Delivery { frame, .. } if frame.is_shared => mem::size_of::<Self>(),
            _ => self.size(),
        }
    }
}
