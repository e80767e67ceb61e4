//! Sends a message from a device to the log. The ack is queued in the outbox when the log has the message durably.

use crate::{
    backend::Backend,
    entry_log::not_logged,
    hub::Connection,
    metrics,
    outbox::{Outgoing, SendId},
    trace,
};
use abi::{
    ApiError,
    error::ErrorCode,
    ids::{self, Conversation},
    json,
    v1::{Ack, Message, Send, entry::Content, message::Body},
};
use kafka_runtime::Position;
use utils::trace::Kind;

/// Longest content type, in characters. RFC 6838 allows 127 for each of the two halves; real ones are much shorter.
const MAX_CONTENT_TYPE: usize = 127;

/// Checks a message and queues it for the log. Messages of one connection reach the log in the order of these calls.
///
/// # Errors
/// The error for the device. The message was then not queued.
pub async fn send(
    backend: &Backend,
    connection: &Connection,
    id: SendId,
    send: Send,
) -> Result<(), ApiError> {
    metrics::sent();
    let user = &connection.identity.user;
    // First, so that refused messages count as well: checking them costs work.
    backend.rate_limits().send(user)?;
    ids::check_client_msg_id(&send.client_msg_id)?;
    let message = send.message.ok_or_else(|| ApiError::invalid("message is missing"))?;
    check_message(&message, backend.limits().max_body)?;
    let conversation = Conversation::parse(&send.conversation)?;
    backend.permissions().check_send(user, conversation).await?;
    let conversation = conversation.to_string();
    let (log, content) = (backend.entry_log(), Content::Message(message));
    let entry = log.entry(&connection.identity, conversation, send.client_msg_id, content);
    let spans = trace::begin("send", &entry);
    let logging = spans.children("log", Kind::Producer);
    let record = log.record(&entry, &logging);
    let ack = Ack {
        message_id: entry.message_id,
        sent_at_ms: entry.sent_at_ms,
        client_msg_id: entry.client_msg_id,
    };
    let outbox = connection.outbox.clone();
    let on_delivery = Box::new(move |delivered: Result<Position, _>| match delivered {
        Ok(position) => {
            metrics::acknowledged();
            trace::logged(logging, position);
            spans.finish();
            outbox.push(Outgoing::Sent { id, result: Ok(ack) });
        }
        Err(error) => outbox.push_refusal(id, not_logged(&error)),
    });
    if connection.outbox.has_refusal() {
        return Err(ApiError::unavailable(
            "the log did not accept an earlier message; send both again, in order",
        ));
    }
    log.enqueue(record, on_delivery)
}

fn check_message(message: &Message, max_body: usize) -> Result<(), ApiError> {
    let size = match &message.body {
        None => return Err(ApiError::invalid("message has no body; give text or data")),
        Some(Body::Text(text)) => text.len(),
        Some(Body::Data(data)) => data.len(),
    };
    if size > max_body {
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("the body has {size} bytes; {max_body} are allowed"),
        ));
    }
    // A legal body must fit into a frame in each format, whatever the format of the sender. The only bodies that grow so much
    // are texts of control characters.
    if let Some(Body::Text(text)) = &message.body {
        let (size, max) = (json::text_size(text), json::MAX_GROWTH * max_body);
        if size > max {
            return Err(ApiError::new(
                ErrorCode::TooLarge,
                format!(
                    "the text has {size} bytes in JSON, because of its control characters; {max} are allowed"
                ),
            ));
        }
    }
    let content_type = &message.content_type;
    if content_type.len() > MAX_CONTENT_TYPE
        || !content_type.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    {
        return Err(ApiError::invalid(format!(
            "content_type must have at most {MAX_CONTENT_TYPE} printable ASCII characters"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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

    fn message(content_type: &str, body: Option<Body>) -> Message {
        Message { content_type: content_type.into(), body }
    }

    #[test]
    fn p7_the_body_limit_counts_bytes() {
        let text = |length| message("", Some(Body::Text("x".repeat(length))));
        check_message(&text(16), 16).unwrap();
        assert_eq!(check_message(&text(17), 16).unwrap_err().code, ErrorCode::TooLarge);
        let accented = message("", Some(Body::Text("é".repeat(9))));
        assert_eq!(check_message(&accented, 16).unwrap_err().code, ErrorCode::TooLarge);
    }

    #[test]
    fn p7_a_text_of_control_characters_is_limited_by_its_size_in_json() {
        let text = |length| message("", Some(Body::Text("\0".repeat(length))));
        check_message(&text(7), 16).unwrap();
        assert_eq!(check_message(&text(8), 16).unwrap_err().code, ErrorCode::TooLarge);
    }

    #[test]
    fn a_message_needs_a_body_and_a_printable_content_type() {
        let body = Some(Body::Text("hello".into()));
        check_message(&message("text/markdown; charset=utf-8", body.clone()), 16).unwrap();
        for (content_type, body) in
            [("", None), (&*"x".repeat(128), body.clone()), ("text/plain\n", body.clone()), ("text/é", body)]
        {
            let error = check_message(&message(content_type, body), 16).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidRequest);
        }
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
        let (frame, size): (ServerFrame, usize) = match format.deliver(ReceiverSeq::default(), 1, &[entry]) {
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
            let message = message("text/plain", Some(body));
            prop_assume!(check_message(&message, limits.max_body).is_ok());
            let id = "x".repeat(64);
            let entry = Entry {
                app: id.clone(),
                conversation: format!("d:{id}:{id}"),
                message_id: "f".repeat(32),
                conversation_seq: u64::MAX,
                countable_seq: u64::MAX,
                sender: id.clone(),
                sender_device: id.clone(),
                client_msg_id: "\"".repeat(64),
                sent_at_ms: i64::MAX,
                content: Some(Content::Message(message)),
            };
            let encoded = EncodedEntry::new(entry.clone());
            for format in [Format::Proto, Format::Json] {
                let (received, size) = received(format, &encoded);
                prop_assert_eq!(&received, &entry);
                prop_assert!(size <= limits.max_frame, "{} bytes", size);
            }
        }
    }
}
