//! Payloads of records in the log, and the frames that devices get from them.

use abi::{
    record,
    splice::{EncodedEntry, deliver_json, deliver_proto},
    v1::{Deliver, ReceiverSeq, ServerFrame, server_frame::Frame},
};
use bytes::Bytes;
use prost::Message as _;

/// The input is the payload of a record.
pub fn payload(data: &[u8]) {
    let entry = match record::decode(&Bytes::copy_from_slice(data)) {
        Ok(entry) => entry,
        Err(error) => return crate::check_error(&error),
    };
    let payload = record::encode(&entry);
    crate::check_size(data.len(), payload.len());
    assert_eq!(record::decode(&payload).as_ref(), Ok(&entry));
    let key = record::key(&entry.app, &entry.conversation);
    assert_eq!(key, format!("{}/{}", entry.app, entry.conversation));

    // Spliced frames equal frames that are encoded as a whole.
    let receiver_seq = ReceiverSeq { epoch: data.len() as u32, seq: entry.conversation_seq };
    let encoded = EncodedEntry::new(entry.clone());
    for (raised, count) in [(0, 0), (1, 1), (entry.client_msg_id.len() as u32, 3)] {
        let entries = vec![&encoded; count];
        let deliver =
            Deliver { receiver_seq: Some(receiver_seq), raised, entries: vec![entry.clone(); count] };
        let frame = ServerFrame { frame: Some(Frame::Deliver(deliver)), ..ServerFrame::default() };
        let proto = deliver_proto(receiver_seq, raised, &entries);
        assert_eq!(proto, frame.encode_to_vec());
        assert!(client::codec::is_deliver(&proto));
        let json: ServerFrame = serde_json::from_str(&deliver_json(receiver_seq, raised, &entries))
            .expect("a frame is valid JSON");
        assert_eq!(json, frame);
    }
}
