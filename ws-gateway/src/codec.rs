//! The two wire formats of a WebSocket: binary protobuf and proto3 JSON text.

use abi::{
    ApiError, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO,
    error::{ErrorCode, excerpt},
    splice::{EncodedEntry, deliver_json, deliver_proto},
    v1::{ClientFrame, ReceiverSeq, ServerFrame, server_frame::Frame},
};
use axum::extract::ws::Message;
use prost::Message as _;

/// How a device talks, as agreed by the subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `godwit.v1.proto`: binary frames.
    Proto,
    /// `godwit.v1.json`: text frames.
    Json,
}

impl Format {
    /// The format behind the subprotocol that was agreed on. A device that `asked` for none speaks JSON, which a person can
    /// type; with one that asked only for others there is no agreement.
    pub fn of_subprotocol(agreed: Option<&str>, asked: bool) -> Option<Self> {
        match agreed {
            Some(SUBPROTOCOL_PROTO) => Some(Self::Proto),
            Some(SUBPROTOCOL_JSON) => Some(Self::Json),
            None if !asked => Some(Self::Json),
            _ => None,
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with what is wrong; the connection may go on.
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

    /// Writes a frame.
    pub fn encode(self, frame: &ServerFrame) -> Message {
        match self {
            Self::Proto => Message::Binary(frame.encode_to_vec().into()),
            Self::Json => Message::Text(json(frame).into()),
        }
    }

    /// About how many bytes a `Deliver` frame of these entries has.
    pub fn size(self, entries: &[&EncodedEntry]) -> usize {
        let size = match self {
            Self::Proto => EncodedEntry::proto_size,
            Self::Json => EncodedEntry::json_size,
        };
        entries.iter().map(|entry| size(entry)).sum()
    }

    /// Writes a `Deliver` frame of entries that were encoded before.
    pub fn deliver(self, receiver_seq: ReceiverSeq, raised: u32, entries: &[&EncodedEntry]) -> Message {
        match self {
            Self::Proto => Message::Binary(deliver_proto(receiver_seq, raised, entries)),
            Self::Json => Message::Text(deliver_json(receiver_seq, raised, entries).into()),
        }
    }
}

/// A frame in JSON; an error in the place of one that says something that JSON has no name for, such as a value of a later
/// version of the contract.
fn json(frame: &ServerFrame) -> String {
    serde_json::to_string(frame).unwrap_or_else(|error| {
        tracing::warn!(%error, "a frame can't be written in JSON");
        let fault =
            ApiError::new(ErrorCode::Internal, "the answer can't be written in JSON; try godwit.v1.proto");
        let error = ServerFrame { id: frame.id, frame: Some(Frame::Error(fault.into())) };
        serde_json::to_string(&error).expect("an error of our own has a JSON form")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{Head, HeadsPage, Ping, client_frame::Frame};

    #[test]
    fn a_frame_of_the_other_format_is_an_error_that_says_so() {
        let text = Message::Text("{}".into());
        let binary = Message::Binary(Default::default());
        assert!(Format::Proto.decode(&text).unwrap_err().message.contains("send binary frames"));
        assert!(Format::Json.decode(&binary).unwrap_err().message.contains("send text frames"));
    }

    #[test]
    fn unknown_fields_in_json_are_an_error() {
        let text = Message::Text(r#"{"id":1,"shout":{}}"#.into());
        assert!(Format::Json.decode(&text).unwrap_err().message.contains("shout"));
    }

    #[test]
    fn p7_an_error_does_not_repeat_all_that_it_is_about() {
        let text = Message::Text(format!(r#"{{"{}\n":{{}}}}"#, "x".repeat(60_000)).into());
        let fault = Format::Json.decode(&text).unwrap_err();
        assert!(fault.message.len() < 500, "{} bytes", fault.message.len());
    }

    #[test]
    fn p6_a_value_of_a_later_version_is_an_error_in_json() {
        let page = HeadsPage { heads: vec![Head { role: 99, ..Head::default() }], more: false };
        let frame = ServerFrame { id: 7, frame: Some(abi::v1::server_frame::Frame::Heads(page)) };
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
