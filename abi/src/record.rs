//! Records of the log: the key that keeps a conversation in one partition, and the checks of an encoded entry.

use crate::{
    envelope::{self, envelope},
    error::ApiError,
    ids,
    v1::Envelope,
};
use bytes::Bytes;

/// Header with the address of the gateway that waits for the outcome of the record.
pub const REPLY_TO: &str = "godwit-reply-to";

/// Key of all records of a conversation.
pub fn key(app: &str, conversation: &str) -> Bytes {
    Bytes::from(format!("{app}/{conversation}"))
}

/// Splits a key into application and conversation. `None` if the key has another form.
pub fn split_key(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('/')
}

/// Decodes the envelope of an encoded entry and checks everything that the store relies on. Kinds and contents are not checked:
/// entries of later versions pass.
///
/// # Errors
/// `INVALID_REQUEST` with the reason. A retry can't help.
pub fn decode(entry: &Bytes) -> Result<Envelope, ApiError> {
    let envelope = envelope(entry)
        .map_err(|error| ApiError::invalid(format!("the payload is not an entry: {error}")))?;
    ids::check_id("sender", &envelope.sender)?;
    let conversation = ids::Conversation::parse(&envelope.conversation)?;
    if !conversation.is_canonical(&envelope.conversation) {
        return Err(ApiError::invalid(
            "the users in the id of a direct conversation must be in ascending order",
        ));
    }
    if ids::message_bytes(&envelope.message_id).is_none() {
        return Err(ApiError::invalid("message_id must be 32 hexadecimal digits"));
    }
    let refers_to = &envelope.refers_to;
    if !refers_to.is_empty() && ids::message_bytes(refers_to).is_none() {
        return Err(ApiError::invalid("refers_to must be a message id: 32 hexadecimal digits"));
    }
    if envelope.kind.is_empty() {
        return Err(ApiError::invalid("the entry has no kind"));
    }
    if envelope::is_change_of_entry(&envelope.kind) && refers_to.is_empty() {
        return Err(ApiError::invalid(format!(
            "refers_to is missing: an entry of kind {} needs it",
            envelope.kind
        )));
    }
    Ok(envelope)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Entry;
    use proptest::prelude::*;
    use prost::Message as _;

    fn entry() -> Entry {
        Entry {
            conversation: "d:alice:bob".into(),
            message_id: ids::message("default", "d:alice:bob", "alice", "phone", "1"),
            sender: "alice".into(),
            kind: envelope::MESSAGE.into(),
            ..Entry::default()
        }
    }

    fn decode_entry(entry: &Entry) -> Result<Envelope, ApiError> {
        decode(&Bytes::from(entry.encode_to_vec()))
    }

    #[test]
    fn invalid_entries_are_rejected() {
        let invalidate: [fn(&mut Entry); 8] = [
            |entry| entry.conversation = "d:bob:alice".into(),
            |entry| entry.conversation = "nowhere".into(),
            |entry| entry.message_id = "x".into(),
            |entry| entry.sender = "a b".into(),
            |entry| entry.kind.clear(),
            |entry| entry.refers_to = "x".into(),
            |entry| entry.kind = envelope::EDIT.into(),
            |entry| entry.sender.clear(),
        ];
        for invalidate in invalidate {
            let mut entry = entry();
            invalidate(&mut entry);
            decode_entry(&entry).unwrap_err();
        }
    }

    #[test]
    fn p6_an_entry_of_a_later_kind_is_accepted() {
        let entry = Entry { kind: "hologram".into(), ..entry() };
        assert_eq!(decode_entry(&entry).unwrap().kind, "hologram");
    }

    #[test]
    fn a_key_names_application_and_conversation() {
        assert_eq!(split_key(&key("default", "d:alice:bob")), Some(("default", "d:alice:bob")));
        assert_eq!(split_key(b"key"), None);
        assert_eq!(split_key(b"\xff/x"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
