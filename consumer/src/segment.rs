//! Splits a batch into segments, each of which is saved and delivered as a whole.
//!
//! The members of a group are looked up once per segment. Therefore a change of a group is the only entry of that group in its
//! segment: earlier entries go to the members before the change, later ones to the members after it. A batch without changes, the
//! usual case, is one segment.
//!
//! Segments get smaller with each attempt. If the store can't save a segment within the deadline of a call, saving all of it again
//! can't succeed either. Each saved segment is progress: the next attempt finds its entries as duplicates, which takes less time.

use abi::{envelope::GROUP, v1::Envelope};
use bytes::Bytes;
use std::collections::HashSet;

/// Most bytes of a segment. Far below the store's limit for one call.
const MAX_BYTES: usize = 8 << 20;
/// The size of a segment is divided by this with each attempt.
const SHRINK: usize = 4;
/// The smallest limit of a segment. Even a slow store saves so many entries within the deadline of a call.
const MIN_ENTRIES: usize = 8;

/// An entry read from the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoggedEntry {
    /// Index of its record in the batch.
    pub(crate) index: usize,
    /// Offset of its record.
    pub(crate) offset: i64,
    /// Application.
    pub(crate) app: String,
    /// The encoded entry.
    pub(crate) bytes: Bytes,
    /// The fields that this service reads.
    pub(crate) envelope: Envelope,
    /// The address of the gateway that waits for the outcome. Empty: none.
    pub(crate) reply_to: String,
}

impl LoggedEntry {
    /// Whether the entry is a group change.
    pub(crate) fn is_change(&self) -> bool {
        self.envelope.kind == GROUP
    }
}

/// Most entries of a segment of a batch of this size. The first attempt is 1.
fn max_entries(batch: usize, attempt: u32) -> usize {
    let divisor = SHRINK.saturating_pow(attempt.saturating_sub(1));
    batch.div_ceil(divisor).max(MIN_ENTRIES)
}

/// Splits a batch for an attempt. All entries of a segment belong to one application.
pub(crate) fn split(batch: Vec<LoggedEntry>, attempt: u32) -> Vec<Vec<LoggedEntry>> {
    let max_entries = max_entries(batch.len(), attempt);
    let any_change = batch.iter().any(LoggedEntry::is_change);
    let mut segments: Vec<Vec<LoggedEntry>> = Vec::new();
    let mut bytes = 0;
    // The conversations of the current segment, and those with a change in it. Not maintained for batches without changes.
    let mut seen = HashSet::new();
    let mut changed = HashSet::new();
    for logged in batch {
        let conversation = &logged.envelope.conversation;
        let change = logged.is_change();
        let conflicts = changed.contains(conversation) || (change && seen.contains(conversation));
        let has_room = |last: &Vec<LoggedEntry>| {
            last.len() < max_entries && last.last().is_some_and(|last| last.app == logged.app)
        };
        if conflicts || bytes + logged.bytes.len() > MAX_BYTES || !segments.last().is_some_and(has_room) {
            segments.push(Vec::new());
            bytes = 0;
            seen.clear();
            changed.clear();
        }
        bytes += logged.bytes.len();
        if any_change {
            seen.insert(conversation.clone());
            if change {
                changed.insert(conversation.clone());
            }
        }
        if let Some(segment) = segments.last_mut() {
            segment.push(logged);
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::envelope::MESSAGE;

    /// A batch of messages to these conversations. With a `!` it is a group change.
    fn batch(entries: &[&str]) -> Vec<LoggedEntry> {
        let logged = |(index, text): (usize, &&str)| {
            let (conversation, kind) = match text.strip_suffix('!') {
                Some(conversation) => (conversation, GROUP),
                None => (*text, MESSAGE),
            };
            let envelope =
                Envelope { conversation: conversation.into(), kind: kind.into(), ..Envelope::default() };
            let bytes = Bytes::from_static(b"x");
            let (offset, app) = (index as i64, "app".into());
            LoggedEntry { index, offset, app, bytes, envelope, reply_to: String::new() }
        };
        entries.iter().enumerate().map(logged).collect()
    }

    fn lengths(batch: Vec<LoggedEntry>) -> Vec<usize> {
        let segments = split(batch.clone(), 1);
        assert_eq!(segments.concat(), batch, "all entries are there, in order");
        segments.iter().map(Vec::len).collect()
    }

    #[test]
    fn p3_a_batch_is_split_only_around_changes_of_the_same_group() {
        assert_eq!(lengths(batch(&[])), [0; 0]);
        assert_eq!(lengths(batch(&["a", "b", "a", "a"])), [4]);
        // Changes of different groups share a segment.
        assert_eq!(lengths(batch(&["a!", "b!", "c!", "d"])), [4]);
        assert_eq!(lengths(batch(&["a", "b", "a!", "a", "b"])), [2, 1, 2]);
        assert_eq!(lengths(batch(&["a!", "a!", "b", "a"])), [1, 2, 1]);
        assert_eq!(lengths(batch(&["a", "b!", "a", "b"])), [3, 1]);
    }

    #[test]
    fn p6_segments_get_smaller_with_each_attempt() {
        let logged = batch(&["a"; 100]);
        let lengths = |attempt| {
            let segments = split(logged.clone(), attempt);
            assert_eq!(segments.concat(), logged);
            segments.iter().map(Vec::len).max().unwrap()
        };
        assert_eq!([1, 2, 3, 4, u32::MAX].map(lengths), [100, 25, MIN_ENTRIES, MIN_ENTRIES, MIN_ENTRIES]);
    }

    #[test]
    fn a_segment_has_one_application_and_a_bounded_size() {
        let mut logged = batch(&["a", "a", "a"]);
        logged[1].app = "other".into();
        assert_eq!(lengths(logged), [1, 1, 1]);
        let mut logged = batch(&["a", "a", "a", "a"]);
        for logged in &mut logged {
            logged.bytes = Bytes::from(vec![0; MAX_BYTES / 2]);
        }
        assert_eq!(lengths(logged), [2, 2]);
    }
}
