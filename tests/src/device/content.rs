//! Contents of frames: texts and seqs of entries, errors, new ids.

use abi::{
    ApiError,
    v1::{Entry, HeadsPage, HistoryPage, Message, Send, client_frame, message::Body, server_frame::Frame},
};
use anyhow::{Result, bail};

/// A frame that sends a text.
pub fn send(conversation: &str, client_msg_id: &str, text: &str) -> client_frame::Frame {
    client_frame::Frame::Send(Send {
        conversation: conversation.into(),
        client_msg_id: client_msg_id.into(),
        message: Some(Message { content_type: String::new(), body: Some(Body::Text(text.into())) }),
    })
}

/// The text of an entry; empty for other content.
pub fn text(entry: &Entry) -> &str {
    match &entry.content {
        Some(abi::v1::entry::Content::Message(Message { body: Some(Body::Text(text)), .. })) => text,
        _ => "",
    }
}

/// The texts of entries.
pub fn texts(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(text).collect()
}

/// The `conversation_seq` of each entry.
pub fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.conversation_seq).collect()
}

/// The server's error.
///
/// # Panics
/// If the request succeeded, or failed for another reason.
#[track_caller]
pub fn refusal<T: std::fmt::Debug>(result: Result<T>) -> ApiError {
    let error = result.expect_err("the server should refuse this request");
    match error.downcast::<ApiError>() {
        Ok(error) => error,
        Err(other) => panic!("expected an error of the server: {other:?}"),
    }
}

/// Joins two parts of an answer. An error ends the answer.
///
/// # Errors
/// If they are no parts of one answer.
pub(super) fn join(first: Frame, next: Frame) -> Result<Frame> {
    match (first, next) {
        (Frame::Heads(mut page), Frame::Heads(next)) => {
            page.heads.extend(next.heads);
            Ok(Frame::Heads(HeadsPage { more: next.more, ..page }))
        }
        (Frame::History(mut page), Frame::History(next)) => {
            page.entries.extend(next.entries);
            Ok(Frame::History(HistoryPage { more: next.more, ..page }))
        }
        (_, error @ Frame::Error(_)) => Ok(error),
        (first, next) => bail!("{next:?} continues {first:?}"),
    }
}

/// A new `client_msg_id`.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
