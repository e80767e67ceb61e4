//! Encoded entries: reads and adds fields without decoding the rest.
//!
//! The gateway encodes an [`Entry`](crate::v1::Entry) once. Services behind it decode only an [`Envelope`] and pass the bytes on, so
//! that an entry of a later version (another kind, unknown fields) reaches its receivers byte for byte. A protobuf message may have its
//! fields in any order, so a field is added by appending it.

use crate::v1::{EntryState, Envelope};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::{
    DecodeError, Message as _,
    encoding::{
        DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, encoded_len_varint,
        skip_field,
    },
};

/// Kind of a message.
pub const MESSAGE: &str = "message";
/// Kind of an edit.
pub const EDIT: &str = "edit";
/// Kind of a recall.
pub const RECALL: &str = "recall";
/// Kind of a reaction.
pub const REACTION: &str = "reaction";
/// Kind of a group change.
pub const GROUP: &str = "group";

/// Field numbers of [`Entry`](crate::v1::Entry). A test compares them with the generated code.
pub mod field {
    /// `conversation`.
    pub const CONVERSATION: u32 = 1;
    /// `message_id`.
    pub const MESSAGE_ID: u32 = 2;
    /// `conversation_seq`.
    pub const CONVERSATION_SEQ: u32 = 3;
    /// `countable_seq`.
    pub const COUNTABLE_SEQ: u32 = 4;
    /// `content`.
    pub const CONTENT: u32 = 12;
    /// `refers_to_seq`.
    pub const REFERS_TO_SEQ: u32 = 15;
    /// `state`.
    pub const STATE: u32 = 16;
    /// `target_state`.
    pub const TARGET_STATE: u32 = 17;
}

/// Whether entries of a kind change the entry that they refer to.
pub fn is_change_of_entry(kind: &str) -> bool {
    matches!(kind, EDIT | RECALL | REACTION)
}

/// Decodes the fields that services read. The content stays encoded.
///
/// # Errors
/// The bytes are not a protobuf message with these fields.
pub fn envelope(entry: &Bytes) -> Result<Envelope, DecodeError> {
    Envelope::decode(entry.clone())
}

/// The `conversation_seq` of an encoded entry that [`numbered`] has made: a later value of a field replaces an earlier one.
///
/// # Errors
/// The bytes are not a protobuf message.
pub fn conversation_seq(entry: &Bytes) -> Result<u64, DecodeError> {
    let (mut seq, mut rest) = (0, entry.clone());
    while rest.has_remaining() {
        let (number, wire_type) = decode_key(&mut rest)?;
        if number == field::CONVERSATION_SEQ && wire_type == WireType::Varint {
            seq = decode_varint(&mut rest)?;
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        }
    }
    Ok(seq)
}

/// The bytes of an encoded message without some of its top-level fields. All other bytes stay as they are.
///
/// # Errors
/// The bytes are not a protobuf message.
pub fn without(message: &Bytes, fields: &[u32]) -> Result<Bytes, DecodeError> {
    select(message, |field| !fields.contains(&field))
}

/// The bytes of an entry with the content of another entry in place of its own. All other bytes stay as they are.
///
/// # Errors
/// The bytes are not protobuf messages.
pub fn with_content_of(entry: &Bytes, other: &Bytes) -> Result<Bytes, DecodeError> {
    let mut bytes = BytesMut::from(without(entry, &[field::CONTENT])?);
    bytes.put(select(other, |field| field == field::CONTENT)?);
    Ok(bytes.freeze())
}

/// The top-level fields of an encoded message whose numbers `keep` accepts, as they are.
fn select(message: &Bytes, keep: impl Fn(u32) -> bool) -> Result<Bytes, DecodeError> {
    let mut kept = BytesMut::new();
    let mut rest = message.clone();
    while rest.has_remaining() {
        let before = rest.clone();
        let (number, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, number, &mut rest, DecodeContext::default())?;
        if keep(number) {
            kept.put_slice(&before[..before.len() - rest.len()]);
        }
    }
    Ok(kept.freeze())
}

/// The numbers and the states that the store adds to an entry. 0 and `None` add nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    /// `conversation_seq`.
    pub conversation_seq: u64,
    /// `countable_seq`.
    pub countable_seq: u64,
    /// `refers_to_seq`.
    pub refers_to_seq: u64,
    /// `state`.
    pub state: Option<EntryState>,
    /// `target_state`.
    pub target_state: Option<EntryState>,
}

/// An encoded entry with the numbers appended.
pub fn numbered(entry: &[u8], numbers: &Numbers) -> Bytes {
    let mut bytes = BytesMut::with_capacity(entry.len() + 32);
    bytes.put_slice(entry);
    put_number(field::CONVERSATION_SEQ, numbers.conversation_seq, &mut bytes);
    put_number(field::COUNTABLE_SEQ, numbers.countable_seq, &mut bytes);
    put_number(field::REFERS_TO_SEQ, numbers.refers_to_seq, &mut bytes);
    for (field, state) in [(field::STATE, &numbers.state), (field::TARGET_STATE, &numbers.target_state)] {
        if let Some(state) = state {
            put_bytes(field, &state.encode_to_vec(), &mut bytes);
        }
    }
    bytes.freeze()
}

/// Appends a field with bytes, a string or an encoded message.
pub fn put_bytes(field: u32, value: &[u8], message: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, message);
    encode_varint(value.len() as u64, message);
    message.put_slice(value);
}

/// Bytes that [`put_bytes`] appends for a value of this length.
pub fn bytes_field_len(field: u32, length: usize) -> usize {
    prost::encoding::key_len(field) + encoded_len_varint(length as u64) + length
}

/// Appends a number, unless it is 0.
pub fn put_number(field: u32, value: u64, message: &mut BytesMut) {
    if value != 0 {
        encode_key(field, WireType::Varint, message);
        encode_varint(value, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Content, Entry, content::Body};
    use proptest::prelude::*;

    fn entry(text: &str) -> Entry {
        Entry {
            conversation: "d:alice:bob".into(),
            message_id: "00".repeat(16),
            sender: "alice".into(),
            sender_device: "phone".into(),
            client_msg_id: "1".into(),
            sent_at_ms: 7,
            kind: MESSAGE.into(),
            countable: true,
            refers_to: "11".repeat(16),
            content: Some(Content { content_type: "text/plain".into(), body: Some(Body::Text(text.into())) }),
            reactions: vec!["+1".into()],
            ..Entry::default()
        }
    }

    proptest! {
        #[test]
        fn p1_an_envelope_has_the_fields_of_its_entry(text in ".{0,60}") {
            let entry = entry(&text);
            let bytes = Bytes::from(entry.encode_to_vec());
            let envelope = envelope(&bytes).unwrap();
            prop_assert_eq!(&envelope.encode_to_vec()[..], &bytes[..]);
            prop_assert_eq!(Content::decode(envelope.content).unwrap(), entry.content.unwrap());
        }

        #[test]
        fn p1_removed_and_added_fields_leave_all_others_as_they_were(text in ".{0,60}", unknown in proptest::collection::vec(any::<u8>(), 0..40)) {
            let entry = entry(&text);
            let mut bytes = BytesMut::from(&entry.encode_to_vec()[..]);
            put_bytes(999, &unknown, &mut bytes);
            let bytes = bytes.freeze();
            let kept = without(&bytes, &[field::CONVERSATION, field::MESSAGE_ID]).unwrap();
            let mut whole = BytesMut::new();
            put_bytes(field::CONVERSATION, entry.conversation.as_bytes(), &mut whole);
            put_bytes(field::MESSAGE_ID, entry.message_id.as_bytes(), &mut whole);
            whole.put_slice(&kept);
            prop_assert_eq!(whole.freeze(), bytes);
        }

        #[test]
        fn an_edit_replaces_only_the_content(text in ".{0,60}", edited in ".{0,60}", unknown in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = BytesMut::from(&entry(&text).encode_to_vec()[..]);
            put_bytes(999, &unknown, &mut bytes);
            let edit = Entry { kind: EDIT.into(), sent_at_ms: 8, ..entry(&edited) };
            let edit = Bytes::from(edit.encode_to_vec());
            let result = with_content_of(&bytes.freeze(), &edit).unwrap();
            prop_assert_eq!(Entry::decode(result.clone()).unwrap(), entry(&edited));
            let mut end = BytesMut::new();
            put_bytes(999, &unknown, &mut end);
            let kept = without(&result, &[field::CONTENT]).unwrap();
            prop_assert!(kept.ends_with(&end), "unknown fields are kept");
        }

        #[test]
        fn p4_numbers_are_those_of_the_generated_code(seq: u64, countable: u64, target: u64, edits: u32) {
            let state = EntryState { edits, changed_seq: 9, ..EntryState::default() };
            let numbers = Numbers {
                conversation_seq: seq,
                countable_seq: countable,
                refers_to_seq: target,
                state: Some(state.clone()),
                target_state: Some(state.clone()),
            };
            let bytes = numbered(&entry("x").encode_to_vec(), &numbers);
            let expected = Entry {
                conversation_seq: seq,
                countable_seq: countable,
                refers_to_seq: target,
                state: Some(state.clone()),
                target_state: Some(state),
                ..entry("x")
            };
            prop_assert_eq!(conversation_seq(&bytes).unwrap(), seq);
            prop_assert_eq!(Entry::decode(bytes).unwrap(), expected);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = (envelope(&bytes), conversation_seq(&bytes));
            let _ = without(&bytes, &[1, 2, 12]);
            let _ = with_content_of(&bytes, &bytes);
        }
    }
}
