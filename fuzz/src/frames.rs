//! Single frames of a device.

use abi::{frame::FrameError, v1::ClientFrame};
use axum::extract::ws::Message;
use prost::Message as _;
use serde_json::Value;
use ws_gateway::codec::Format;

/// Words of the libraries that decode. People who write clients don't know them.
const FOREIGN: [&str; 5] = ["invalid type", "invalid value", "EOF", "DecodeError", "godwit.v1"];

/// The input is a binary frame.
pub fn proto(data: &[u8]) {
    let message = Message::Binary(data.to_vec().into());
    match Format::Proto.decode(&message) {
        Ok(frame) => {
            crate::check_size(data.len(), frame.encoded_len());
            check_both_formats(&frame);
        }
        Err(error) => {
            check_error(data, &error);
            if let Ok(frame) = ClientFrame::decode(data) {
                assert_eq!(error.id, frame.id, "{error}");
            }
        }
    }
    crate::check_error(&Format::Json.decode(&message).expect_err("a binary frame is not JSON").error);
}

/// The input is a text frame.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let message = Message::Text(text.into());
    match Format::Json.decode(&message) {
        Ok(frame) => check_both_formats(&frame),
        Err(error) => {
            check_error(data, &error);
            check_id(text, error.id);
        }
    }
    crate::check_error(&Format::Proto.decode(&message).expect_err("a text frame is not protobuf").error);
}

fn check_error(data: &[u8], FrameError { error, .. }: &FrameError) {
    crate::check_error(error);
    let quoted = String::from_utf8_lossy(data);
    let is_ours = |word: &&str| !error.message.contains(word) || quoted.contains(word);
    assert!(FOREIGN.iter().all(is_ours), "{}", error.message);
}

/// Checks that the error of a frame has its id, if the frame is JSON with one plain id.
fn check_id(text: &str, id: u32) {
    let Ok(Value::Object(frame)) = serde_json::from_str(text) else { return };
    let plain = frame.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
    // An object may have the member several times; only then does the text have more of these.
    if let Some(plain) = plain
        && text.matches("id").count() == 1
        && !text.contains("\\u")
    {
        assert_eq!(id, plain, "{text}");
    }
}

fn check_both_formats(frame: &ClientFrame) {
    let binary = Message::Binary(frame.encode_to_vec().into());
    assert_eq!(Format::Proto.decode(&binary).as_ref(), Ok(frame));
    let text = Message::Text(serde_json::to_string(frame).expect("a frame has a JSON form").into());
    assert_eq!(Format::Json.decode(&text).as_ref(), Ok(frame));
}
