//! The two wire formats of a WebSocket: binary protobuf and proto3 JSON text.

use abi::{
    ApiError, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO,
    error::{ErrorCode, excerpt},
    splice::{EncodedEntry, deliver_json, deliver_proto, signal_json, signal_proto},
    v1::{ClientFrame, ReceiverSeq, ServerFrame, server_frame::Frame},
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
    /// `INVALID_REQUEST` for a malformed frame. The connection may continue.
    pub fn decode(self, message: &Message) -> Result<ClientFrame, ApiError> {
        match (self, message) {
            (Self::Proto, Message::Binary(bytes)) => ClientFrame::decode(bytes.clone())
                .map_err(|error| ApiError::invalid(format!("the frame is not a ClientFrame: {error}"))),
            (Self::Json, Message::Text(text)) => serde_json::from_str(text).map_err(|error| {
                ApiError::invalid(format!("the frame is not a ClientFrame in JSON: {}", excerpt(error)))
            }),
            (Self::Proto, _) => {
                Err(ApiError::invalid("this connection speaks godwit.v1.proto: send binary frames"))
            }
            (Self::Json, _) => {
                Err(ApiError::invalid("this connection speaks godwit.v1.json: send text frames"))
            }
        }
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

/// A frame in JSON. JSON names enum values, so a value of a later version of the contract can't be encoded; an error replaces
/// such a frame.
fn json(frame: &ServerFrame) -> String {
    serde_json::to_string(frame).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot encode a frame in JSON");
        let error =
            ApiError::new(ErrorCode::Internal, "the answer cannot be encoded in JSON; use godwit.v1.proto");
        let frame = ServerFrame { id: frame.id, frame: Some(Frame::Error(error.into())), more_parts: false };
        serde_json::to_string(&frame).expect("an error of our own has a JSON form")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{Head, Heads, Ping, client_frame::Frame};

    #[test]
    fn a_frame_in_the_wrong_format_is_refused_with_the_right_format() {
        let text = Message::Text("{}".into());
        let binary = Message::Binary(Default::default());
        assert!(Format::Proto.decode(&text).unwrap_err().message.contains("send binary frames"));
        assert!(Format::Json.decode(&binary).unwrap_err().message.contains("send text frames"));
    }

    #[test]
    fn unknown_fields_in_json_are_refused() {
        let text = Message::Text(r#"{"id":1,"shout":{}}"#.into());
        assert!(Format::Json.decode(&text).unwrap_err().message.contains("shout"));
    }

    #[test]
    fn p7_an_error_text_is_short_even_for_a_large_frame() {
        let text = Message::Text(format!(r#"{{"{}\n":{{}}}}"#, "x".repeat(60_000)).into());
        let error = Format::Json.decode(&text).unwrap_err();
        assert!(error.message.len() < 500, "{} bytes", error.message.len());
    }

    #[test]
    fn p6_an_enum_value_of_a_later_version_becomes_an_error_in_json() {
        let page = Heads { heads: vec![Head { role: 99, ..Head::default() }] };
        let frame =
            ServerFrame { id: 7, frame: Some(abi::v1::server_frame::Frame::Heads(page)), more_parts: false };
        let Message::Text(text) = Format::Json.encode(&frame) else { panic!("not a text") };
        let error: ServerFrame = serde_json::from_str(&text).unwrap();
        assert_eq!(error.id, 7);
        assert!(matches!(error.frame, Some(abi::v1::server_frame::Frame::Error(_))), "{text}");
    }

    #[test]
    fn both_formats_carry_the_same_frame() {
        let frame = ClientFrame { id: 7, frame: Some(Frame::Ping(Ping {})) };
        let json = Message::Text(serde_json::to_string(&frame).unwrap().into());
        let proto = Message::Binary(frame.encode_to_vec().into());
        assert_eq!(Format::Json.decode(&json).unwrap(), frame);
        assert_eq!(Format::Proto.decode(&proto).unwrap(), frame);
    }
}
