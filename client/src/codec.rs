//! Encoding and decoding of frames.

use crate::Error;
use abi::v1::{ClientFrame, ServerFrame, client_frame};
use bytes::{Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};

/// Field numbers of the contract; a test compares them with the generated code.
const CLIENT_FRAME_ID: u32 = 1;
const CLIENT_FRAME_SEND: u32 = 3;
const SEND_CONVERSATION: u32 = 1;
const SEND_CLIENT_MSG_ID: u32 = 2;
const SEND_MESSAGE: u32 = 3;
const MESSAGE_TEXT: u32 = 2;
/// First byte of a frame with a `Deliver`. Its id is 0, so the frame starts with this field.
const DELIVER_KEY: u8 = 4 << 3 | 2;

/// Encodes a client frame.
pub fn encode(id: u32, frame: client_frame::Frame) -> Bytes {
    ClientFrame { id, frame: Some(frame) }.encode_to_vec().into()
}

/// Decodes a server frame.
///
/// # Errors
/// [`Error::Protocol`] if the bytes are not a server frame.
pub fn decode(bytes: Bytes) -> Result<ServerFrame, Error> {
    abi::frame::server_from_proto(bytes).map_err(Error::Protocol)
}

/// Whether a frame is a `Deliver`, without decoding it.
pub fn is_deliver(bytes: &[u8]) -> bool {
    bytes.first() == Some(&DELIVER_KEY)
}

/// Appends a `Send` with a text to a buffer without building the message first, because a load generator sends hundreds
/// of thousands per second.
pub fn encode_text(buffer: &mut BytesMut, id: u32, conversation: &str, client_msg_id: &str, text: &str) {
    let message = field_length(MESSAGE_TEXT, text.len());
    let send = field_length(SEND_CONVERSATION, conversation.len())
        + field_length(SEND_CLIENT_MSG_ID, client_msg_id.len())
        + field_length(SEND_MESSAGE, message);
    buffer.reserve(send + 16);
    if id != 0 {
        encode_key(CLIENT_FRAME_ID, WireType::Varint, buffer);
        encode_varint(id.into(), buffer);
    }
    put_header(buffer, CLIENT_FRAME_SEND, send);
    put_text(buffer, SEND_CONVERSATION, conversation);
    put_text(buffer, SEND_CLIENT_MSG_ID, client_msg_id);
    put_header(buffer, SEND_MESSAGE, message);
    put_text(buffer, MESSAGE_TEXT, text);
}

fn put_header(buffer: &mut BytesMut, field: u32, length: usize) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

fn put_text(buffer: &mut BytesMut, field: u32, text: &str) {
    put_header(buffer, field, text.len());
    buffer.extend_from_slice(text.as_bytes());
}

fn field_length(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{Deliver, Message, Send, message::Body, server_frame};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_hand_encoded_send_equals_the_generated_one(id: u32, conversation in "[a-z:]{1,40}", client_msg_id in "[!-~]{1,64}", text in "\\PC{0,300}") {
            let mut buffer = BytesMut::new();
            encode_text(&mut buffer, id, &conversation, &client_msg_id, &text);
            let message = Message { content_type: String::new(), body: Some(Body::Text(text)) };
            let send = Send { conversation, client_msg_id, message: Some(message) };
            let frame = client_frame::Frame::Send(send);
            prop_assert_eq!(buffer.freeze(), encode(id, frame));
        }

        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(bytes.into());
        }
    }

    #[test]
    fn a_deliver_is_recognised_by_its_first_byte() {
        let frame =
            |id, frame| ServerFrame { id, frame: Some(frame), ..ServerFrame::default() }.encode_to_vec();
        assert!(is_deliver(&frame(0, server_frame::Frame::Deliver(Deliver::default()))));
        assert!(!is_deliver(&frame(7, server_frame::Frame::Ack(Default::default()))));
        assert!(!is_deliver(&frame(0, server_frame::Frame::Pong(Default::default()))));
        assert!(!is_deliver(&[]));
    }
}
