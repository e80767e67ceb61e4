//! Tests of drafts.

use super::*;
use crate::{codec::Format, limits::Limits};
use abi::{
    config::Config,
    splice::EncodedEntry,
    v1::{Entry, ReceiverSeq, ServerFrame, server_frame},
};
use axum::extract::ws::Message as Frame;
use proptest::prelude::*;
use prost::Message as _;

fn content(content_type: &str, body: Option<Body>) -> Content {
    Content { content_type: content_type.into(), body }
}

fn send(kind: &str) -> Send {
    Send {
        conversation: "d:alice:bob".into(),
        client_msg_id: "1".into(),
        kind: kind.into(),
        ..Send::default()
    }
}

fn text() -> Option<Content> {
    Some(content("", Some(Body::Text("hello".into()))))
}

#[test]
fn p7_the_body_limit_counts_bytes() {
    let text = |length| content("", Some(Body::Text("x".repeat(length))));
    check_content(&text(16), 16).unwrap();
    assert_eq!(check_content(&text(17), 16).unwrap_err().code, ErrorCode::TooLarge);
    let accented = content("", Some(Body::Text("é".repeat(9))));
    assert_eq!(check_content(&accented, 16).unwrap_err().code, ErrorCode::TooLarge);
}

#[test]
fn content_needs_a_body_and_a_printable_type() {
    let body = Some(Body::Text("hello".into()));
    check_content(&content("text/markdown; charset=utf-8", body.clone()), 16).unwrap();
    for (content_type, body) in
        [("", None), (&*"x".repeat(128), body.clone()), ("text/plain\n", body.clone()), ("text/é", body)]
    {
        let error = check_content(&content(content_type, body), 16).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidRequest);
    }
}

#[test]
fn each_kind_has_its_members() {
    let target = "00".repeat(16);
    let refers = |send: Send| Send { refers_to: target.clone(), ..send };
    let valid = [
        Send { content: text(), ..send("") },
        refers(Send { content: text(), ..send("message") }),
        refers(Send { content: text(), ..send(EDIT) }),
        refers(send(RECALL)),
        refers(send(REACTION)),
        refers(Send { reactions: vec!["👍".into(), "🎉".into()], ..send(REACTION) }),
        send("acme.order"),
        refers(Send { countable: true, content: text(), ..send("acme.order.v2") }),
    ];
    for send in valid {
        draft(send.clone(), 16).unwrap_or_else(|error| panic!("{send:?}: {error}"));
    }
    let invalid = [
        send(""),
        Send { content: text(), ..send(EDIT) },
        refers(send(EDIT)),
        send(RECALL),
        refers(Send { content: text(), ..send(RECALL) }),
        refers(Send { content: text(), ..send(REACTION) }),
        refers(Send { reactions: vec![String::new()], ..send(REACTION) }),
        refers(Send { reactions: vec!["a".into(), "a".into()], ..send(REACTION) }),
        Send { reactions: vec!["a".into()], content: text(), ..send("") },
        Send { refers_to: "7".into(), content: text(), ..send("") },
        send(GROUP),
        send("order"),
        send("Acme.order"),
        send("acme."),
        Send { content: text(), client_msg_id: String::new(), ..send("") },
    ];
    for send in invalid {
        let error = draft(send.clone(), 16).expect_err(&format!("{send:?}"));
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{send:?}: {error}");
    }
}

#[test]
fn p8_the_error_for_a_kind_names_the_kind_whatever_else_the_entry_has() {
    let target = "00".repeat(16);
    for entry in [send("order"), Send { content: text(), refers_to: target, ..send("order") }] {
        let error = draft(entry, 16).unwrap_err();
        assert!(error.message.starts_with("kind must be") && error.message.contains("\"order\""), "{error}");
    }
}

#[test]
fn only_messages_and_kinds_of_the_product_count() {
    let target = "00".repeat(16);
    assert!(draft(Send { content: text(), ..send("") }, 16).unwrap().countable);
    assert!(!draft(Send { refers_to: target, countable: true, ..send(RECALL) }, 16).unwrap().countable);
    assert!(draft(Send { countable: true, ..send("acme.order") }, 16).unwrap().countable);
    assert!(!draft(send("acme.order"), 16).unwrap().countable);
}

#[test]
fn p7_a_text_of_control_characters_is_limited_by_its_size_in_json() {
    let text = |length| content("", Some(Body::Text("\0".repeat(length))));
    check_content(&text(7), 16).unwrap();
    assert_eq!(check_content(&text(8), 16).unwrap_err().code, ErrorCode::TooLarge);
}

/// Texts of up to 17 KiB whose characters grow differently in JSON.
fn texts() -> impl Strategy<Value = String> {
    let part = (0..8usize, 0..6_000usize).prop_map(|(kind, count)| {
        ["\0", "\u{1f}\u{7f}", "\n\t", "\"\\", "a/<", "é\u{85}", "\u{2028}\u{feff}\u{ffff}", "😀"][kind]
            .repeat(count)
    });
    proptest::collection::vec(part, 0..4)
        .prop_map(|parts| parts.concat())
        .prop_filter("larger than any body", |text| text.len() <= 17 << 10)
}

/// The entry that a device reads from a frame, and the size of the frame.
fn received(format: Format, entry: &EncodedEntry) -> (Entry, usize) {
    let (frame, size): (ServerFrame, usize) = match format.deliver(ReceiverSeq::default(), 1, &[entry], &[]) {
        Frame::Text(text) => (serde_json::from_str(&text).unwrap(), text.len()),
        Frame::Binary(bytes) => (ServerFrame::decode(bytes.clone()).unwrap(), bytes.len()),
        other => panic!("{other:?}"),
    };
    match frame.frame {
        Some(server_frame::Frame::Deliver(deliver)) => (deliver.entries[0].clone(), size),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn p7_a_legal_body_makes_a_legal_frame_in_each_format(
        text in texts(), data in proptest::collection::vec(any::<u8>(), 0..17 << 10), is_text: bool,
    ) {
        let limits = Limits::new(&Config::default());
        let body = if is_text { Body::Text(text) } else { Body::Data(data.into()) };
        let content = content("text/plain", Some(body));
        prop_assume!(check_content(&content, limits.max_body).is_ok());
        let id = "x".repeat(64);
        let entry = Entry {
                conversation: format!("d:{id}:{id}"),
            message_id: "f".repeat(32),
            conversation_seq: u64::MAX,
            countable_seq: u64::MAX,
            sender: id.clone(),
            sender_device: id.clone(),
            client_msg_id: "\"".repeat(64),
            sent_at_ms: i64::MAX,
            kind: format!("a.{}", "x".repeat(62)),
            countable: true,
            refers_to: "f".repeat(32),
            refers_to_seq: u64::MAX,
            content: Some(content),
            ..Entry::default()
        };
        let encoded = EncodedEntry::new(entry.encode_to_vec().into());
        for format in [Format::Proto, Format::Json] {
            let (received, size) = received(format, &encoded);
            prop_assert_eq!(&received, &entry);
            prop_assert!(size <= limits.max_frame, "{} bytes", size);
        }
    }
}
