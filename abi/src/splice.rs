//! [`Deliver`](crate::v1::Deliver) frames put together from entries that were encoded once.
//!
//! A message goes to many devices, each with its own receiver's `seq`. Only that differs, so an entry is encoded once
//! per wire format ([`EncodedEntry`]) and copied into every frame.

use crate::v1::{Entry, ReceiverSeq};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use std::fmt::Write as _;

/// Field numbers of the contract, held against the generated code by a test.
const SERVER_FRAME_DELIVER: u32 = 4;
const DELIVER_RECEIVER_SEQ: u32 = 1;
const DELIVER_RAISED: u32 = 2;
const DELIVER_ENTRIES: u32 = 3;

/// An entry in the two wire formats; each is made when first asked for.
#[derive(Debug)]
pub struct EncodedEntry {
    entry: Entry,
    proto: std::sync::OnceLock<Bytes>,
    json: std::sync::OnceLock<Box<str>>,
}

impl EncodedEntry {
    /// Takes an entry; encodes nothing yet.
    pub fn new(entry: Entry) -> Self {
        Self { entry, proto: std::sync::OnceLock::new(), json: std::sync::OnceLock::new() }
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

    fn json(&self) -> &str {
        self.json.get_or_init(|| json(&self.entry).into_boxed_str())
    }

    /// About how many bytes it takes in a frame.
    pub fn size(&self) -> usize {
        self.proto().len()
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("generated messages always have a JSON form")
}

/// A binary `ServerFrame` with a `Deliver`.
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

/// A text `ServerFrame` with a `Deliver`.
pub fn deliver_json(receiver_seq: ReceiverSeq, raised: u32, entries: &[&EncodedEntry]) -> String {
    let mut frame = String::from(r#"{"deliver":{"receiverSeq":"#);
    frame.push_str(&json(&receiver_seq));
    if raised > 0 {
        write!(frame, r#","raised":{raised}"#).expect("writing to a String never fails");
    }
    for (index, entry) in entries.iter().enumerate() {
        frame.push_str(if index == 0 { r#","entries":["# } else { "," });
        frame.push_str(entry.json());
    }
    frame.push_str(if entries.is_empty() { "}}" } else { "]}}" });
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Deliver, Message, ServerFrame, entry::Content, message::Body, server_frame::Frame};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_spliced_frame_is_the_frame(
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
            };
            let encoded: Vec<_> = entries.into_iter().map(EncodedEntry::new).collect();
            let parts: Vec<_> = encoded.iter().collect();
            prop_assert_eq!(&deliver_proto(receiver_seq, raised, &parts), &whole.encode_to_vec());
            prop_assert_eq!(deliver_json(receiver_seq, raised, &parts), json(&whole));
        }
    }
}
