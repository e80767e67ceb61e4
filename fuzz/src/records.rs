//! Payloads of records in the log, and the frames that devices get from them.

use abi::{
    envelope::{self, Numbers, field},
    record,
    splice::{EncodedEntry, deliver_json, deliver_proto},
    v1::{Deliver, Entry, EntryState, ReceiverSeq, ServerFrame, Update, server_frame::Frame, update::Kind},
};
use bytes::Bytes;
use prost::Message as _;

/// The input is the payload of a record.
pub fn payload(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    let envelope = match record::decode(&payload) {
        Ok(envelope) => envelope,
        Err(error) => return crate::check_error(&error),
    };
    let key = record::key("default", &envelope.conversation);
    assert_eq!(record::split_key(&key), Some(("default", envelope.conversation.as_str())));

    // The store keeps all other bytes, and puts the two fields back.
    let columns = [field::CONVERSATION, field::MESSAGE_ID];
    let kept = envelope::without(&payload, &columns).expect("the envelope was decoded");
    assert!(kept.len() < payload.len(), "a record has both fields");
    assert_eq!(envelope::without(&kept, &columns), Ok(kept));

    let state = EntryState { changed_seq: 7, edits: 1, ..EntryState::default() };
    let numbers = Numbers {
        conversation_seq: 1 + data.len() as u64,
        countable_seq: 3,
        refers_to_seq: u64::from(!envelope.refers_to.is_empty()),
        state: None,
        target_state: envelope::is_change_of_entry(&envelope.kind).then_some(state),
    };
    let numbered = envelope::numbered(&payload, &numbers);
    assert_eq!(envelope::conversation_seq(&numbered), Ok(numbers.conversation_seq));
    // The content is opaque to everything up to the device.
    let Ok(entry) = Entry::decode(numbered.clone()) else { return };
    assert_eq!((&entry.message_id, &entry.kind), (&envelope.message_id, &envelope.kind));
    assert_eq!(entry.countable_seq, numbers.countable_seq);
    check_frames(&entry, numbered);
}

/// Spliced frames equal frames that are encoded as a whole.
fn check_frames(entry: &Entry, bytes: Bytes) {
    let receiver_seq = ReceiverSeq { epoch: bytes.len() as u32, seq: entry.conversation_seq };
    let encoded = EncodedEntry::new(bytes);
    let update = Update { kind: Some(Kind::Block(abi::v1::Block { user: "bob".into(), blocked: true })) };
    for (raised, count) in [(0, 0), (1, 1), (entry.client_msg_id.len() as u32, 3)] {
        let entries = vec![&encoded; count];
        let updates = vec![Bytes::from(update.encode_to_vec()); count];
        let deliver = Deliver {
            receiver_seq: Some(receiver_seq),
            raised,
            entries: vec![entry.clone(); count],
            updates: vec![update.clone(); count],
        };
        let frame = ServerFrame { frame: Some(Frame::Deliver(deliver)), ..ServerFrame::default() };
        let proto = deliver_proto(receiver_seq, raised, &entries, &updates);
        assert_eq!(ServerFrame::decode(proto.clone()).as_ref(), Ok(&frame));
        assert!(client::codec::is_deliver(&proto));
        let json: ServerFrame = serde_json::from_str(&deliver_json(receiver_seq, raised, &entries, &updates))
            .expect("a frame is valid JSON");
        assert_eq!(json, frame);
    }
}
