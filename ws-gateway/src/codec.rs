//! The two wire formats of a WebSocket: binary protobuf and proto3 JSON text.

use abi::{
    ApiError, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO,
    frame::{self, FrameError},
    splice::{EncodedEntry, deliver_json, deliver_proto, signal_json, signal_proto},
    v1::{ClientFrame, ReceiverSeq, ServerFrame},
};
use axum::extract::ws::Message;
use bytes::Bytes;
use prost::Message as _;

/// Wire format of a connection, negotiated as the WebSocket subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `godwit.v1.proto`: binary frames.
    Proto,
    /// `godwit.v1.json`: text frames.
    Json,
}

impl Format {
    /// The format of the `selected` subprotocol. If the device `requested` none, it speaks JSON, because a person can type
    /// JSON. `None` if it requested only unknown subprotocols.
    pub fn of_subprotocol(selected: Option<&str>, requested: bool) -> Option<Self> {
        match selected {
            Some(SUBPROTOCOL_PROTO) => Some(Self::Proto),
            Some(SUBPROTOCOL_JSON) => Some(Self::Json),
            None if !requested => Some(Self::Json),
            _ => None,
        }
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a malformed frame or an unknown kind of frame, with the id of the frame if it can be read. The
    /// connection may continue.
    pub fn decode(self, message: &Message) -> Result<ClientFrame, FrameError> {
        let format = match (self, message) {
            (Self::Proto, Message::Binary(bytes)) => return frame::client_from_proto(bytes.clone()),
            (Self::Json, Message::Text(text)) => return frame::client_from_json(text),
            (Self::Proto, _) => "this connection speaks godwit.v1.proto: send binary frames",
            (Self::Json, _) => "this connection speaks godwit.v1.json: send text frames",
        };
        Err(FrameError::without_id(ApiError::invalid(format)))
    }

    /// Encodes a frame.
    pub fn encode(self, frame: &ServerFrame) -> Message {
        match self {
            Self::Proto => Message::Binary(frame.encode_to_vec().into()),
            Self::Json => Message::Text(json(frame).into()),
        }
    }

    /// Bytes that an entry adds to a `Deliver` frame.
    pub fn size(self, entry: &EncodedEntry) -> usize {
        match self {
            Self::Proto => entry.proto_size(),
            Self::Json => entry.json_size(),
        }
    }

    /// A `Deliver` frame of entries and updates that are encoded already.
    pub fn deliver(
        self,
        receiver_seq: ReceiverSeq,
        raised: u32,
        entries: &[&EncodedEntry],
        updates: &[Bytes],
    ) -> Message {
        match self {
            Self::Proto => Message::Binary(deliver_proto(receiver_seq, raised, entries, updates)),
            Self::Json => Message::Text(deliver_json(receiver_seq, raised, entries, updates).into()),
        }
    }

    /// The frame of an encoded signal. `None` if JSON can't show it.
    pub fn signal(self, signal: &Bytes) -> Option<Message> {
        match self {
            Self::Proto => Some(Message::Binary(signal_proto(signal))),
            Self::Json => Some(Message::Text(signal_json(signal)?.into())),
        }
    }
}

/// A frame in JSON.
fn json(frame: &ServerFrame) -> String {
    serde_json::to_string(frame).expect("every frame has a JSON form")
}

#[cfg(test)]
mod tests;
