//! Encodes an [`Entry`] as a record of the log: the payload, and the key that keeps a conversation in one partition.

use crate::{
    error::ApiError,
    ids,
    v1::{Entry, GroupChange, HistoryVisibility, entry::Content, group_change::Change},
};
use bytes::Bytes;
use prost::Message as _;

/// Key of all records of a conversation.
pub fn key(app: &str, conversation: &str) -> Bytes {
    Bytes::from(format!("{app}/{conversation}"))
}

/// Splits a key into application and conversation. `None` if the key has another form.
pub fn split_key(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('/')
}

/// Encodes the payload of a record.
pub fn encode(entry: &Entry) -> Bytes {
    Bytes::from(entry.encode_to_vec())
}

/// Decodes a payload and checks everything that the store relies on.
///
/// # Errors
/// `INVALID_REQUEST` with the reason. A retry can't help.
pub fn decode(payload: &Bytes) -> Result<Entry, ApiError> {
    let entry = Entry::decode(payload.clone())
        .map_err(|error| ApiError::invalid(format!("the payload is not an Entry: {error}")))?;
    ids::check_id("app", &entry.app)?;
    ids::check_id("sender", &entry.sender)?;
    let conversation = ids::Conversation::parse(&entry.conversation)?;
    if conversation.to_string() != entry.conversation {
        return Err(ApiError::invalid(
            "the users in the id of a direct conversation must be in ascending order",
        ));
    }
    if ids::message_bytes(&entry.message_id).is_none() {
        return Err(ApiError::invalid("message_id must be 32 hexadecimal digits"));
    }
    match &entry.content {
        None => Err(ApiError::invalid("the entry has no content")),
        Some(Content::GroupChange(GroupChange { change: Some(Change::Created(created)) }))
            if HistoryVisibility::try_from(created.history).is_err() =>
        {
            Err(ApiError::invalid("history has a value unknown to this version"))
        }
        Some(_) => Ok(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{GroupCreated, Message, message::Body};
    use proptest::prelude::*;

    fn entry(text: &str) -> Entry {
        Entry {
            app: "default".into(),
            conversation: "d:alice:bob".into(),
            message_id: ids::message("default", "d:alice:bob", "alice", "1"),
            sender: "alice".into(),
            content: Some(Content::Message(Message {
                content_type: String::new(),
                body: Some(Body::Text(text.into())),
            })),
            ..Entry::default()
        }
    }

    #[test]
    fn invalid_entries_are_rejected() {
        let invalidate: [fn(&mut Entry); 7] = [
            |entry| entry.app.clear(),
            |entry| entry.conversation = "d:bob:alice".into(),
            |entry| entry.conversation = "nowhere".into(),
            |entry| entry.message_id = "x".into(),
            |entry| entry.sender = "a b".into(),
            |entry| entry.content = None,
            |entry| {
                let created = Change::Created(GroupCreated { history: 99, ..GroupCreated::default() });
                entry.content = Some(Content::GroupChange(GroupChange { change: Some(created) }));
            },
        ];
        for invalidate in invalidate {
            let mut entry = entry("hello");
            invalidate(&mut entry);
            decode(&encode(&entry)).unwrap_err();
        }
    }

    #[test]
    fn a_key_names_application_and_conversation() {
        assert_eq!(split_key(&key("default", "d:alice:bob")), Some(("default", "d:alice:bob")));
        assert_eq!(split_key(b"key"), None);
        assert_eq!(split_key(b"\xff/x"), None);
    }

    proptest! {
        #[test]
        fn decoding_reverses_encoding(text in ".{0,200}") {
            prop_assert_eq!(decode(&encode(&entry(&text))).unwrap(), entry(&text));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
