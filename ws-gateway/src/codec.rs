//! The two wire formats of a WebSocket: binary protobuf and proto3 JSON text.

use abi::{
    Fault, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO,
    splice::{EncodedEntry, deliver_json, deliver_proto},
    v1::{ClientFrame, ReceiverSeq, ServerFrame},
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
    pub fn decode(self, message: &Message) -> Result<ClientFrame, Fault> {
        match (self, message) {
            (Self::Proto, Message::Binary(bytes)) => ClientFrame::decode(bytes.clone())
                .map_err(|error| Fault::invalid(format!("the frame is not a ClientFrame: {error}"))),
            (Self::Json, Message::Text(text)) => serde_json::from_str(text)
                .map_err(|error| Fault::invalid(format!("the frame is not a ClientFrame in JSON: {error}"))),
            (Self::Proto, _) => {
                Err(Fault::invalid("this connection speaks godwit.v1.proto: send binary frames"))
            }
            (Self::Json, _) => Err(Fault::invalid("this connection speaks godwit.v1.json: send text frames")),
        }
    }

    /// Writes a frame.
    pub fn encode(self, frame: &ServerFrame) -> Message {
        match self {
            Self::Proto => Message::Binary(frame.encode_to_vec().into()),
            Self::Json => Message::Text(
                serde_json::to_string(frame).expect("generated messages always have a JSON form").into(),
            ),
        }
    }

    /// Writes a `Deliver` frame of entries that were encoded before.
    pub fn deliver(self, receiver_seq: ReceiverSeq, raised: u32, entries: &[&EncodedEntry]) -> Message {
        match self {
            Self::Proto => Message::Binary(deliver_proto(receiver_seq, raised, entries)),
            Self::Json => Message::Text(deliver_json(receiver_seq, raised, entries).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{Ping, client_frame::Frame};

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
    fn both_formats_carry_the_same_frame() {
        let frame = ClientFrame { id: 7, frame: Some(Frame::Ping(Ping {})) };
        let json = Message::Text(serde_json::to_string(&frame).unwrap().into());
        let proto = Message::Binary(frame.encode_to_vec().into());
        assert_eq!(Format::Json.decode(&json).unwrap(), frame);
        assert_eq!(Format::Proto.decode(&proto).unwrap(), frame);
    }
}
