//! Builds [`Deliver`](crate::v1::Deliver) frames from entries that are encoded only once.
//!
//! A message goes to many devices, and their frames differ only in the receiver seq. An entry is therefore encoded once
//! per wire format ([`EncodedEntry`]) and copied into every frame.

use crate::v1::{Entry, ReceiverSeq};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use std::fmt::Write as _;

// Field numbers of the contract. A test compares the result with the generated code.
const SERVER_FRAME_DELIVER: u32 = 4;
const DELIVER_RECEIVER_SEQ: u32 = 1;
const DELIVER_RAISED: u32 = 2;
const DELIVER_ENTRIES: u32 = 3;

/// An entry in both wire formats. Each is encoded on first use.
#[derive(Debug)]
pub struct EncodedEntry {
    entry: Entry,
    proto: std::sync::OnceLock<Bytes>,
    json: std::sync::OnceLock<Box<str>>,
}

impl EncodedEntry {
    /// Wraps an entry. Encodes nothing yet.
    pub fn new(entry: Entry) -> Self {
        Self { entry, proto: std::sync::OnceLock::new(), json: std::sync::OnceLock::new() }
    }

    /// The entry.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The entry as the field `entries` of a `Deliver`: key, length and bytes.
    fn proto(&self) -> &Bytes {
        self.proto.get_or_init(|| {
            let length = self.entry.encoded_len();
            let mut bytes = BytesMut::with_capacity(length + 8);
            encode_key(DELIVER_ENTRIES, WireType::LengthDelimited, &mut bytes);
            encode_varint(length as u64, &mut bytes);
            self.entry.encode_raw(&mut bytes);
            bytes.freeze()
        })
    }

    /// The entry as JSON.
    fn json(&self) -> &str {
        self.json.get_or_init(|| {
            serde_json::to_string(&self.entry).expect("every entry has a JSON form").into_boxed_str()
        })
    }

    /// Bytes that the entry adds to a frame of [`deliver_proto`].
    pub fn proto_size(&self) -> usize {
        self.proto().len()
    }

    /// Bytes that the entry adds to a frame of [`deliver_json`].
    pub fn json_size(&self) -> usize {
        self.json().len() + 1
    }
}

/// Builds a binary `ServerFrame` with a `Deliver`.
pub fn deliver_proto(receiver_seq: ReceiverSeq, raised: u32, entries: &[&EncodedEntry]) -> Bytes {
    let raised = u64::from(raised);
    let seq_length = receiver_seq.encoded_len();
    let mut length = key_len(DELIVER_RECEIVER_SEQ) + encoded_len_varint(seq_length as u64) + seq_length;
    if raised > 0 {
        length += key_len(DELIVER_RAISED) + encoded_len_varint(raised);
    }
    length += entries.iter().map(|entry| entry.proto().len()).sum::<usize>();
    let mut frame = BytesMut::with_capacity(length + 8);
    encode_key(SERVER_FRAME_DELIVER, WireType::LengthDelimited, &mut frame);
    encode_varint(length as u64, &mut frame);
    encode_key(DELIVER_RECEIVER_SEQ, WireType::LengthDelimited, &mut frame);
    encode_varint(seq_length as u64, &mut frame);
    receiver_seq.encode_raw(&mut frame);
    if raised > 0 {
        encode_key(DELIVER_RAISED, WireType::Varint, &mut frame);
        encode_varint(raised, &mut frame);
    }
    for entry in entries {
        frame.put_slice(entry.proto());
    }
    frame.freeze()
}

/// Builds a text `ServerFrame` with a `Deliver`.
pub fn deliver_json(receiver_seq: ReceiverSeq, raised: u32, entries: &[&EncodedEntry]) -> String {
    let mut frame = String::from(r#"{"deliver":{"receiverSeq":"#);
    frame.push_str(&serde_json::to_string(&receiver_seq).expect("numbers always have a JSON form"));
    if raised > 0 {
        write!(frame, r#","raised":{raised}"#).expect("writing to a String never fails");
    }
    let mut separator = r#","entries":["#;
    for json in entries.iter().map(|entry| entry.json()) {
        frame.push_str(std::mem::replace(&mut separator, ","));
        frame.push_str(json);
    }
    frame.push_str(if separator == "," { "]}}" } else { "}}" });
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Deliver, Message, ServerFrame, entry::Content, message::Body, server_frame::Frame};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_spliced_frame_equals_the_encoded_frame(
            texts in proptest::collection::vec(".{0,40}", 0..5), epoch: u32, seq: u64, raised in 0u32..1000,
        ) {
            let entries: Vec<Entry> = texts.iter().zip(1..).map(|(text, conversation_seq)| Entry {
                app: "default".into(),
                conversation: "d:alice:bob".into(),
                conversation_seq,
                content: Some(Content::Message(Message {
                    content_type: String::new(),
                    body: Some(Body::Text(text.clone())),
                })),
                ..Entry::default()
            }).collect();
            let receiver_seq = ReceiverSeq { epoch, seq };
            let whole = ServerFrame {
                id: 0,
                frame: Some(Frame::Deliver(Deliver {
                    receiver_seq: Some(receiver_seq), raised, entries: entries.clone(),
                })),
                ..ServerFrame::default()
            };
            let encoded: Vec<_> = entries.into_iter().map(EncodedEntry::new).collect();
            let parts: Vec<_> = encoded.iter().collect();
            prop_assert_eq!(&deliver_proto(receiver_seq, raised, &parts), &whole.encode_to_vec());
            prop_assert_eq!(deliver_json(receiver_seq, raised, &parts), serde_json::to_string(&whole).unwrap());
            let (proto, json) = (deliver_proto(receiver_seq, raised, &[]), deliver_json(receiver_seq, raised, &[]));
            let grown = deliver_proto(receiver_seq, raised, &parts).len() - proto.len();
            let entries: usize = parts.iter().map(|entry| entry.proto_size()).sum();
            prop_assert!((entries..=entries + 4).contains(&grown), "frame grew by {} bytes, entries have {}", grown, entries);
            let grown = deliver_json(receiver_seq, raised, &parts).len() - json.len();
            let entries: usize = parts.iter().map(|entry| entry.json_size()).sum();
            prop_assert!((entries..=entries + 12).contains(&grown), "frame grew by {} bytes, entries have {}", grown, entries);
        }
    }

    #[test]
    fn p6_json_frames_carry_enum_values_of_later_versions_as_numbers() {
        use crate::v1::{GroupChange, GroupCreated, group_change::Change};
        let created = Change::Created(GroupCreated { history: 99, ..GroupCreated::default() });
        let content = Some(Content::GroupChange(GroupChange { change: Some(created) }));
        let later = Entry { conversation_seq: 7, content, ..Entry::default() };
        let json = deliver_json(ReceiverSeq { epoch: 1, seq: 2 }, 1, &[&EncodedEntry::new(later.clone())]);
        match serde_json::from_str::<ServerFrame>(&json).unwrap().frame {
            Some(Frame::Deliver(deliver)) => assert_eq!(deliver.entries, [later]),
            other => panic!("no delivery: {other:?}"),
        }
    }
}
