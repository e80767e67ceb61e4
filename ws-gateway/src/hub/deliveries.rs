//! The frames that carry a delivery to one receiver.

use crate::{codec::Format, limits::Limits, outbox::Encoded};
use abi::{
    splice::EncodedEntry,
    v1::{Receiver, ReceiverSeq},
};
use axum::extract::ws::Message;

/// Bytes of a frame beside its entries, at most.
const OVERHEAD: usize = 256;

/// A frame and its entries.
pub(super) struct Delivery<'a> {
    pub(super) frame: Encoded,
    pub(super) entries: &'a [&'a EncodedEntry],
}

/// The frames of a delivery. Entries that are too large for one frame are split: each frame counts its own entries, so that a
/// device can follow them one by one. A delivery above the limit becomes a notification without entries.
pub(super) fn deliveries<'a>(
    receiver: &Receiver,
    entries: &'a [&'a EncodedEntry],
    format: Format,
    limits: Limits,
    encoded: impl Fn(Message) -> Encoded,
) -> Vec<Delivery<'a>> {
    let seq = receiver.receiver_seq.unwrap_or(ReceiverSeq { epoch: 0, seq: 0 });
    let frame =
        |seq, raised, entries| Delivery { frame: encoded(format.deliver(seq, raised, entries)), entries };
    let size = format.size(entries);
    if size <= limits.max_delivery && size + OVERHEAD <= limits.max_frame {
        return vec![frame(seq, receiver.raised, entries)];
    }
    // Otherwise an entry is missing or arrives again, and the device synchronises anyway.
    let counts_entries = receiver.raised as usize == entries.len() && seq.seq >= u64::from(receiver.raised);
    if size > limits.max_delivery || !counts_entries {
        return vec![frame(seq, receiver.raised, &[])];
    }
    let (mut frames, mut rest) = (Vec::new(), entries);
    while !rest.is_empty() {
        let (part, left) = rest.split_at(fitting(rest, format, limits.max_frame));
        let seq = ReceiverSeq { seq: seq.seq - left.len() as u64, ..seq };
        frames.push(frame(seq, u32::try_from(part.len()).unwrap_or(u32::MAX), part));
        rest = left;
    }
    frames
}

/// Number of entries that fit into a frame, at least one.
fn fitting(entries: &[&EncodedEntry], format: Format, max_frame: usize) -> usize {
    let mut bytes = OVERHEAD;
    let mut fits = |entry: &&EncodedEntry| {
        bytes += format.size(&[*entry]);
        bytes <= max_frame
    };
    entries.iter().take_while(|entry| fits(entry)).count().max(1)
}
