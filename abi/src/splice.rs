//! Builds [`Deliver`](crate::v1::Deliver) frames from entries that are encoded only once.
//!
//! A message goes to many devices, and their frames differ only in the receiver seq. An entry is therefore encoded once
//! per wire format ([`EncodedEntry`]) and copied into every frame.

use crate::{
    envelope::{bytes_field_len, put_bytes},
    v1::{Entry, ReceiverSeq, ServerFrame, Signal, Update, server_frame::Frame},
};
use bytes::{Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len},
};
use std::fmt::Write as _;

// Field numbers of the contract. A test compares the result with the generated code.
const SERVER_FRAME_DELIVER: u32 = 4;
const SERVER_FRAME_SIGNAL: u32 = 11;
const DELIVER_RECEIVER_SEQ: u32 = 1;
const DELIVER_RAISED: u32 = 2;
const DELIVER_ENTRIES: u32 = 3;
const DELIVER_UPDATES: u32 = 4;

/// An encoded entry, with its JSON form made on first use.
#[derive(Debug)]
pub struct EncodedEntry {
    bytes: Bytes,
    json: std::sync::OnceLock<Option<Box<str>>>,
}

impl EncodedEntry {
    /// Wraps an encoded [`Entry`].
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, json: std::sync::OnceLock::new() }
    }

    /// The entry as JSON. `None` if the bytes are not an entry.
    fn json(&self) -> Option<&str> {
        let json = || {
            let entry = Entry::decode(self.bytes.clone()).ok()?;
            serde_json::to_string(&entry).ok().map(String::into_boxed_str)
        };
        self.json.get_or_init(json).as_deref()
    }

    /// Bytes that the entry adds to a frame of [`deliver_proto`].
    pub fn proto_size(&self) -> usize {
        bytes_field_len(DELIVER_ENTRIES, self.bytes.len())
    }

    /// Bytes that the entry adds to a frame of [`deliver_json`].
    pub fn json_size(&self) -> usize {
        self.json().map_or(0, |json| json.len() + 1)
    }
}

/// Builds a binary `ServerFrame` with a `Deliver`. `updates` are encoded [`Update`]s.
pub fn deliver_proto(
    receiver_seq: ReceiverSeq,
    raised: u32,
    entries: &[&EncodedEntry],
    updates: &[Bytes],
) -> Bytes {
    let raised = u64::from(raised);
    let seq_length = receiver_seq.encoded_len();
    let mut length = key_len(DELIVER_RECEIVER_SEQ) + encoded_len_varint(seq_length as u64) + seq_length;
    if raised > 0 {
        length += key_len(DELIVER_RAISED) + encoded_len_varint(raised);
    }
    length += entries.iter().map(|entry| entry.proto_size()).sum::<usize>();
    length += updates.iter().map(|update| bytes_field_len(DELIVER_UPDATES, update.len())).sum::<usize>();
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
        put_bytes(DELIVER_ENTRIES, &entry.bytes, &mut frame);
    }
    for update in updates {
        put_bytes(DELIVER_UPDATES, update, &mut frame);
    }
    frame.freeze()
}

/// Builds a text `ServerFrame` with a `Deliver`. Entries and updates that can't be decoded are left out; the device detects the gap.
pub fn deliver_json(
    receiver_seq: ReceiverSeq,
    raised: u32,
    entries: &[&EncodedEntry],
    updates: &[Bytes],
) -> String {
    let mut frame = String::from(r#"{"deliver":{"receiverSeq":"#);
    frame.push_str(&serde_json::to_string(&receiver_seq).expect("numbers always have a JSON form"));
    if raised > 0 {
        write!(frame, r#","raised":{raised}"#).expect("writing to a String never fails");
    }
    push_list(&mut frame, "entries", entries.iter().filter_map(|entry| entry.json()));
    let update = |bytes: &Bytes| serde_json::to_string(&Update::decode(bytes.clone()).ok()?).ok();
    push_list(&mut frame, "updates", updates.iter().filter_map(update));
    frame.push_str("}}");
    frame
}

/// Builds a binary `ServerFrame` with an encoded [`Signal`].
pub fn signal_proto(signal: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(signal.len() + 8);
    put_bytes(SERVER_FRAME_SIGNAL, signal, &mut frame);
    frame.freeze()
}

/// Builds a text `ServerFrame` with an encoded [`Signal`]. `None` if the bytes are not a signal.
pub fn signal_json(signal: &Bytes) -> Option<String> {
    let frame = Frame::Signal(Signal::decode(signal.clone()).ok()?);
    serde_json::to_string(&ServerFrame { frame: Some(frame), ..ServerFrame::default() }).ok()
}

/// Appends a member with a list of JSON values, unless the list is empty.
fn push_list(frame: &mut String, member: &str, values: impl Iterator<Item = impl AsRef<str>>) {
    let mut is_open = false;
    for value in values {
        if is_open {
            frame.push(',');
        } else {
            write!(frame, r#","{member}":["#).expect("writing to a String never fails");
            is_open = true;
        }
        frame.push_str(value.as_ref());
    }
    if is_open {
        frame.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Content, Deliver, ReadPosition, Typing, content::Body, signal, update::Kind};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_spliced_frame_equals_the_encoded_frame(
            texts in proptest::collection::vec(".{0,40}", 0..5), epoch: u32, seq: u64, raised in 0u32..1000,
            reads in proptest::collection::vec(0u64..100, 0..3),
        ) {
            let entries: Vec<Entry> = texts.iter().zip(1..).map(|(text, conversation_seq)| Entry {
                conversation: "d:alice:bob".into(),
                conversation_seq,
                content: Some(Content { content_type: String::new(), body: Some(Body::Text(text.clone())) }),
                ..Entry::default()
            }).collect();
            let updates: Vec<Update> = reads.into_iter().map(|read_seq| Update {
                kind: Some(Kind::Read(ReadPosition { read_seq, ..ReadPosition::default() })),
            }).collect();
            let receiver_seq = ReceiverSeq { epoch, seq };
            let whole = ServerFrame {
                id: 0,
                frame: Some(Frame::Deliver(Deliver {
                    receiver_seq: Some(receiver_seq), raised, entries: entries.clone(), updates: updates.clone(),
                })),
                ..ServerFrame::default()
            };
            let encoded: Vec<_> =
                entries.into_iter().map(|entry| EncodedEntry::new(entry.encode_to_vec().into())).collect();
            let updates: Vec<Bytes> = updates.into_iter().map(|update| update.encode_to_vec().into()).collect();
            let parts: Vec<_> = encoded.iter().collect();
            prop_assert_eq!(&deliver_proto(receiver_seq, raised, &parts, &updates), &whole.encode_to_vec());
            prop_assert_eq!(deliver_json(receiver_seq, raised, &parts, &updates), serde_json::to_string(&whole).unwrap());
            let (proto, json) =
                (deliver_proto(receiver_seq, raised, &[], &[]), deliver_json(receiver_seq, raised, &[], &[]));
            let grown = deliver_proto(receiver_seq, raised, &parts, &[]).len() - proto.len();
            let entries: usize = parts.iter().map(|entry| entry.proto_size()).sum();
            prop_assert!((entries..=entries + 4).contains(&grown), "frame grew by {} bytes, entries have {}", grown, entries);
            let grown = deliver_json(receiver_seq, raised, &parts, &[]).len() - json.len();
            let entries: usize = parts.iter().map(|entry| entry.json_size()).sum();
            prop_assert!((entries..=entries + 12).contains(&grown), "frame grew by {} bytes, entries have {}", grown, entries);
        }
    }

    #[test]
    fn a_signal_has_the_same_frame_in_both_formats() {
        let kind = Some(signal::Kind::Typing(Typing { stopped: true }));
        let signal = Signal { conversation: "g:1".into(), user: "alice".into(), kind };
        let bytes = Bytes::from(signal.encode_to_vec());
        let expected = ServerFrame { frame: Some(Frame::Signal(signal)), ..ServerFrame::default() };
        assert_eq!(ServerFrame::decode(signal_proto(&bytes)).unwrap(), expected);
        assert_eq!(signal_json(&bytes).unwrap(), serde_json::to_string(&expected).unwrap());
    }

    #[test]
    fn p6_json_frames_leave_out_undecodable_entries() {
        let broken = EncodedEntry::new(Bytes::from_static(b"\xff"));
        let known = Entry { conversation_seq: 7, ..Entry::default() };
        let known = EncodedEntry::new(known.encode_to_vec().into());
        let read = |entries: &[&EncodedEntry]| {
            let json = deliver_json(ReceiverSeq { epoch: 1, seq: 2 }, 2, entries, &[]);
            match serde_json::from_str::<ServerFrame>(&json).unwrap().frame {
                Some(Frame::Deliver(deliver)) => deliver.entries.iter().map(|e| e.conversation_seq).collect(),
                other => panic!("no delivery: {other:?}"),
            }
        };
        let none: Vec<u64> = read(&[&broken]);
        assert!(none.is_empty());
        assert_eq!(read(&[&broken, &known, &known]), [7, 7]);
    }
}
