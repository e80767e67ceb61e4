//! Dead letters as JSON.

use abi::{
    record,
    v1::{Content, Envelope, content::Body},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use kafka_runtime::Letter;
use prost::Message as _;
use serde_json::{Map, Value, json};

/// A letter in a list: its origin and the reason.
pub(super) fn summary(letter: &Letter) -> Value {
    let record = &letter.record;
    let key = String::from_utf8_lossy(&record.key);
    json!({
        "id": letter.id.to_string(),
        "at_ms": record.timestamp_ms,
        "topic": letter.origin.as_ref().map(|origin| &*origin.topic),
        "partition": letter.origin.as_ref().map(|origin| origin.partition),
        "offset": letter.offset,
        "key": key,
        "conversation": record::split_key(&record.key).map(|(_, conversation)| conversation),
        "bytes": record.payload.len(),
        "reason": letter.reason,
        "attempts": letter.attempts,
        "replayed_from": letter.replayed_from.map(|id| id.to_string()),
        "omitted_bytes": letter.omitted_bytes,
    })
}

/// All of a letter; the text of a message only `with_body`.
pub(super) fn details(letter: &Letter, with_body: bool) -> Value {
    let mut shown = summary(letter);
    let headers: Map<String, Value> = letter
        .record
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into()))
        .collect();
    shown["headers"] = headers.into();
    let entry = record::decode(&letter.record.payload);
    match &entry {
        Ok(entry) => shown["entry"] = envelope(entry),
        Err(error) => shown["unreadable"] = json!(error.message),
    }
    if with_body {
        shown["payload_base64"] = json!(BASE64_STANDARD.encode(&letter.record.payload));
        if let Ok(envelope) = &entry
            && let Some(Body::Text(text)) = content(envelope).body
        {
            shown["text"] = json!(text);
        }
    }
    shown
}

/// The content of an entry; the default if there is none that this version can decode.
fn content(envelope: &Envelope) -> Content {
    Content::decode(envelope.content.clone()).unwrap_or_default()
}

/// The fields of an entry other than its content.
fn envelope(entry: &Envelope) -> Value {
    json!({
        "conversation": entry.conversation,
        "message_id": entry.message_id,
        "client_msg_id": entry.client_msg_id,
        "sender": entry.sender,
        "sender_device": entry.sender_device,
        "sent_at_ms": entry.sent_at_ms,
        "kind": entry.kind,
        "refers_to": entry.refers_to,
        "content_type": content(entry).content_type,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::{ids, v1::Entry};
    use kafka_runtime::{LetterId, Position, Record};

    fn letter(payload: bytes::Bytes) -> Letter {
        let record = Record {
            topic: "t.dead".into(),
            partition: 0,
            offset: 3,
            key: record::key("default", "d:alice:bob"),
            payload,
            headers: Vec::new(),
            timestamp_ms: 1,
        };
        Letter {
            id: LetterId(Position { partition: 0, offset: 3 }),
            origin: None,
            offset: None,
            reason: "why".into(),
            attempts: 1,
            replayed_from: None,
            omitted_bytes: None,
            record,
        }
    }

    #[test]
    fn p8_the_text_of_a_message_is_shown_only_on_request() {
        let content =
            Content { content_type: "text/plain".into(), body: Some(Body::Text("our secret".into())) };
        let entry = Entry {
            conversation: "d:alice:bob".into(),
            message_id: ids::message("default", "d:alice:bob", "alice", "phone", "1"),
            sender: "alice".into(),
            kind: abi::envelope::MESSAGE.into(),
            content: Some(content),
            ..Entry::default()
        };
        let letter = letter(entry.encode_to_vec().into());
        let coded = BASE64_STANDARD.encode(&letter.record.payload);
        for shown in [summary(&letter), details(&letter, false)] {
            let text = shown.to_string();
            assert!(!text.contains("our secret") && !text.contains(&coded), "{text}");
            assert_eq!(shown["conversation"], "d:alice:bob");
        }
        let shown = details(&letter, true);
        assert_eq!((&shown["text"], &shown["payload_base64"]), (&json!("our secret"), &json!(coded)));
        assert_eq!(
            (&shown["entry"]["sender"], &shown["entry"]["kind"]),
            (&json!("alice"), &json!("message"))
        );
    }

    #[test]
    fn an_undecodable_letter_shows_the_reason() {
        let shown = details(&letter("no entry".into()), false);
        assert!(
            shown["unreadable"].as_str().is_some_and(|why| !why.is_empty()) && shown.get("entry").is_none()
        );
    }
}
