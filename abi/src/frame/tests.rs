use super::*;
use crate::{
    error::ErrorCode,
    v1::{Ack, GetHistory, Ping, Send, client_frame::Frame, server_frame},
};
use proptest::prelude::*;

/// The id and the sentence of the error for a frame in JSON.
fn json_error(text: &str) -> (u32, String) {
    parts(client_from_json(text).unwrap_err())
}

/// The id and the sentence of the error for a frame in protobuf.
fn proto_error(bytes: &[u8]) -> (u32, String) {
    parts(client_from_proto(Bytes::copy_from_slice(bytes)).unwrap_err())
}

fn parts(FrameError { id, error }: FrameError) -> (u32, String) {
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    (id, error.message)
}

#[test]
fn an_error_in_json_has_the_id_the_member_and_the_value() {
    let cases = [
        (
            r#"{"id":7,"history":{"after":1.5}}"#,
            "`history.after`: expected an integer from 0 to 18446744073709551615, got 1.5",
        ),
        (
            r#"{"history":{"after":"abc"},"id":7}"#,
            r#"`history.after`: expected an integer from 0 to 18446744073709551615, got "abc""#,
        ),
        (r#"{"id":7,"history":{"newest":"yes"}}"#, r#"`history.newest`: expected true or false, got "yes""#),
        (r#"{"id":7,"send":{"conversation":{}}}"#, "`send.conversation`: expected a text, got an object"),
        (r#"{"id":7,"send":[]}"#, "`send`: expected an object, got a list"),
        (r#"{"id":"7","ping":{},"hello":{}}"#, "`hello`: expected only one of `hello`, "),
        (r#"{"id":7,"ping":{},"ping":{}}"#, "`ping`: the object has this member twice"),
        (r#"{"id":7,"id":7,"ping":{}}"#, "`id`: the object has this member twice"),
        (r#"{"id":7,"send":{"clientMsgId":"a","client_msg_id":"b"}}"#, "`send.clientMsgId`: the object has"),
        (
            r#"{"id":7,"send":{"conversation":"so nice \ud83d"}}"#,
            r"`send.conversation`: a \u escape is incomplete, or is half of a surrogate pair",
        ),
        (r#"{"id":7,"send":{"conversation":"\ud83d\u0041"}}"#, r"`send.conversation`: a \u escape is half"),
        (r#"{"id":7,"send":{"conversation":"d:al"#, "`send.conversation`: the JSON text ends in a string"),
        (r#"{"id":7,"history":{"after":1e400}}"#, "`history.after`: number out of range"),
        (r#"{"id":7,"ping":{}} {"#, "trailing characters (line 1, column 20)"),
        (r#"{"id":7,"ping" {}}"#, "`ping`: expected `:`"),
        (r#"{"id":7 "ping":{}}"#, "expected `,` or `}` (line 1, column 9)"),
    ];
    for (text, expected) in cases {
        let (id, message) = json_error(text);
        assert_eq!(id, 7, "{text}");
        let reason = message.strip_prefix("the frame can't be read: ").unwrap_or_default();
        assert!(reason.starts_with(expected), "{text}: {message}");
    }
}

#[test]
fn an_id_that_is_no_id_is_named_and_the_error_has_none() {
    for id in ["1764500000000", "-1", "1.5", r#""x""#, "{}", "[7]", "true"] {
        let (got, message) = json_error(&format!(r#"{{"id":{id},"ping":{{}}}}"#));
        assert_eq!(got, 0);
        assert!(message.contains("`id`: expected an integer from 0 to 4294967295, got "), "{message}");
    }
    assert_eq!(json_error("[]").0, 0);
    assert_eq!(json_error("").0, 0);
}

#[test]
fn a_frame_of_an_unknown_kind_is_answered_with_its_id_and_names_the_kind() {
    let (id, message) = json_error(r#"{"shout":{"text":"\ud83d"},"id":7}"#);
    assert_eq!(id, 7);
    assert!(
        message.starts_with("this server does not know `shout`; its frames are hello, send, "),
        "{message}"
    );
    let (id, message) = json_error(r#"{"id":7,"send":null}"#);
    assert_eq!(id, 7);
    assert!(message.starts_with("the frame holds no request; its frames are hello, "), "{message}");
    let (id, message) = proto_error(&[8, 7, 0xfa, 0x3f, 0]);
    assert_eq!(id, 7);
    assert!(message.starts_with("this server does not know field 1023; its frames are "), "{message}");
    let (id, message) = proto_error(&[8, 7]);
    assert_eq!(id, 7);
    assert!(message.starts_with("the frame holds no request; "), "{message}");
}

#[test]
fn an_error_in_protobuf_has_the_id_and_the_field() {
    let cases: [(&[u8], &str); 8] = [
        (&[8, 7, 0x1a, 4, 0x0a, 2, b'a', 0xff], "`send.conversation`: the text is not UTF-8 after 1 bytes"),
        (&[0x1a, 2, 0x08, 1, 8, 7], "`send.conversation`: expected wire type 2, got 0"),
        (&[8, 7, 0x1a, 9, 0x0a], "`send`: the field is cut off"),
        (&[8, 7, 0x1a, 2, 0x0a, 5], "`send.conversation`: the field is cut off"),
        (&[8, 7, 0x2a, 2, 0x10, 0x80], "`history.after`: the number is malformed or cut off"),
        (&[8, 7, 0x2a, 2, 0x98, 6], "`history`: field 99 is malformed or cut off"),
        (&[8, 7, 0xff], "the frame: the key of a field is malformed or cut off"),
        (&[8, 7, 0x3a, 1, 0], "`ping`: the key of a field is malformed or cut off"),
    ];
    for (bytes, expected) in cases {
        let (id, message) = proto_error(bytes);
        let id_is_behind = bytes[0] == 0x1a && bytes[1] == 2;
        assert!(id == 7 || id_is_behind, "{bytes:?}");
        assert_eq!(message.strip_prefix("the frame can't be read: "), Some(expected));
    }
    let error = server_from_proto(Bytes::from_static(&[0x1a, 3, 0x0a, 1, 0xff])).unwrap_err();
    assert_eq!(
        error,
        "a frame of the server can't be read: `ack.message_id`: the text is not UTF-8 after 0 bytes"
    );
}

#[test]
fn unknown_members_and_fields_are_ignored_in_both_formats() {
    let expected = ClientFrame { id: 7, frame: Some(Frame::Ping(Ping {})) };
    let text = r#"{"trace":["\ud83d",{"a":{}}],"id":7,"ping":{"at":1e999,"":null},"Ping":{}}"#;
    assert_eq!(client_from_json(text), Ok(expected.clone()));
    let deep = format!(r#"{{"id":7,"x":{}{},"ping":{{}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(client_from_json(&deep), Ok(expected.clone()));
    let mut bytes = expected.encode_to_vec();
    bytes.extend([0xfa, 0x3f, 2, 1, 2]);
    assert_eq!(client_from_proto(bytes.into()), Ok(expected));
}

#[test]
fn p7_an_error_is_short_and_printable_even_for_a_large_frame() {
    let long = "x".repeat(60_000) + "\\n\\u202e";
    for text in [
        format!(r#"{{"{long}":{{}}}}"#),
        format!(r#"{{"a":1,"{long}":{{}},"{long}b":{{}}}}"#),
        format!(r#"{{"history":{{"after":"{long}"}}}}"#),
        format!(r#"{{"send":{{"{long}":1,"conversation":7}}}}"#),
    ] {
        let (_, message) = json_error(&text);
        assert!(message.len() < 500 && !message.contains(char::is_control), "{message:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused_for_a_reason(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Err(error) = client_from_proto(bytes.clone().into()) {
            prop_assert!(!error.error.message.contains("not protobuf of this protocol"), "{:?}", error);
        }
        let _ = server_from_proto(bytes.into());
    }

    #[test]
    fn a_broken_frame_is_refused_with_its_id_and_a_reason(
        id in 1u32.., conversation in "[a-z:]{0,20}", at in 0usize..60, byte: u8,
    ) {
        let history = GetHistory { conversation, after: 300, ..GetHistory::default() };
        let frame = ClientFrame { id, frame: Some(Frame::History(history)) };
        let id_length = ClientFrame { id, frame: None }.encoded_len();
        let mut bytes = frame.encode_to_vec();
        let at = id_length + at % (bytes.len() - id_length);
        bytes[at] = byte;
        // The rest of a field whose length is broken may be read as a second id.
        let has_second_id = bytes[id_length..].contains(&8);
        if let Err(error) = client_from_proto(bytes.into()) {
            prop_assert!(error.id == id || has_second_id, "{:?}", error);
            prop_assert!(!error.error.message.contains("not protobuf of this protocol"), "{:?}", error);
        }
        let text = serde_json::to_string(&frame).unwrap();
        let cut = text.char_indices().map(|(at, _)| at).nth(text.len() - 1 - at % 10).unwrap();
        let error = client_from_json(&text[..cut]).unwrap_err();
        prop_assert_eq!(error.id, id);
    }

    #[test]
    fn a_frame_is_the_same_in_both_formats(id: u32, conversation in ".{0,20}", client_msg_id in ".{0,20}") {
        let send = Send { conversation, client_msg_id: client_msg_id.clone(), ..Send::default() };
        let frame = ClientFrame { id, frame: Some(Frame::Send(send)) };
        prop_assert_eq!(client_from_json(&serde_json::to_string(&frame).unwrap()), Ok(frame.clone()));
        prop_assert_eq!(client_from_proto(frame.encode_to_vec().into()), Ok(frame));
        let ack = Ack { client_msg_id, ..Ack::default() };
        let frame = ServerFrame { id, frame: Some(server_frame::Frame::Ack(ack)), ..ServerFrame::default() };
        prop_assert_eq!(server_from_proto(frame.encode_to_vec().into()), Ok(frame));
    }
}
