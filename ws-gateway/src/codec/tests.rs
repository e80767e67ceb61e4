use super::*;
use abi::v1::{Head, HeadsPage, Ping, client_frame, server_frame::Frame};

#[test]
fn a_frame_in_the_wrong_format_is_refused_with_the_right_format() {
    let text = Message::Text("{}".into());
    let binary = Message::Binary(Default::default());
    assert!(Format::Proto.decode(&text).unwrap_err().error.message.contains("send binary frames"));
    assert!(Format::Json.decode(&binary).unwrap_err().error.message.contains("send text frames"));
}

#[test]
fn an_enum_value_of_a_later_version_is_a_number_in_json() {
    let page = HeadsPage { heads: vec![Head { role: 99, ..Head::default() }], more: false };
    let frame = ServerFrame { id: 7, frame: Some(Frame::Heads(page)), more_parts: false };
    let Message::Text(text) = Format::Json.encode(&frame) else { panic!("not a text") };
    assert_eq!(text.as_str(), r#"{"id":7,"heads":{"heads":[{"role":99}]}}"#);
    assert_eq!(serde_json::from_str::<ServerFrame>(&text).unwrap(), frame);
}

#[test]
fn both_formats_carry_the_same_frame() {
    let frame = ClientFrame { id: 7, frame: Some(client_frame::Frame::Ping(Ping {})) };
    let json = Message::Text(serde_json::to_string(&frame).unwrap().into());
    let proto = Message::Binary(frame.encode_to_vec().into());
    assert_eq!(Format::Json.decode(&json).as_ref(), Ok(&frame));
    assert_eq!(Format::Proto.decode(&proto), Ok(frame));
}
