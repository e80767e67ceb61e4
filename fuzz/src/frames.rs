//! Single frames of a device.

use abi::v1::ClientFrame;
use axum::extract::ws::Message;
use prost::Message as _;
use ws_gateway::codec::Format;

/// The input is a binary frame.
pub fn proto(data: &[u8]) {
    let message = Message::Binary(data.to_vec().into());
    match Format::Proto.decode(&message) {
        Ok(frame) => {
            crate::check_size(data.len(), frame.encoded_len());
            check_both_formats(&frame);
        }
        Err(error) => crate::check_error(&error.error),
    }
    crate::check_error(&Format::Json.decode(&message).expect_err("a binary frame is not JSON").error);
}

/// The input is a text frame.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let message = Message::Text(text.into());
    match Format::Json.decode(&message) {
        Ok(frame) => check_both_formats(&frame),
        Err(error) => crate::check_error(&error.error),
    }
    crate::check_error(&Format::Proto.decode(&message).expect_err("a text frame is not protobuf").error);
}

fn check_both_formats(frame: &ClientFrame) {
    let binary = Message::Binary(frame.encode_to_vec().into());
    assert_eq!(Format::Proto.decode(&binary).as_ref(), Ok(frame));
    let text = Message::Text(serde_json::to_string(frame).expect("a frame has a JSON form").into());
    assert_eq!(Format::Json.decode(&text).as_ref(), Ok(frame));
}
