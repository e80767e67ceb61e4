//! Splits a batch into segments, each of which is saved and delivered as a whole.
//!
//! The members of a group are looked up once per segment. Therefore a change of a group is the only entry of that group in its
//! segment: earlier entries go to the members before the change, later ones to the members after it. A batch without changes, the
//! usual case, is one segment.

use abi::v1::{Entry, entry::Content};
use std::collections::HashSet;

/// Most bytes of a segment. Far below the store's limit for one call.
const MAX_BYTES: usize = 8 << 20;

/// An entry read from the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoggedEntry {
    /// Index of its record in the batch.
    pub(crate) index: usize,
    /// Size of its record, in bytes.
    pub(crate) size: usize,
    /// The entry.
    pub(crate) entry: Entry,
}

/// Whether an entry is a group change.
pub(crate) fn is_change(entry: &Entry) -> bool {
    matches!(entry.content, Some(Content::GroupChange(_)))
}

/// Splits a batch. All entries of a segment belong to one application.
pub(crate) fn split(batch: Vec<LoggedEntry>) -> Vec<Vec<LoggedEntry>> {
    let any_change = batch.iter().any(|logged| is_change(&logged.entry));
    let mut segments: Vec<Vec<LoggedEntry>> = Vec::new();
    let mut bytes = 0;
    // The conversations of the current segment, and those with a change in it. Not maintained for batches without changes.
    let mut seen = HashSet::new();
    let mut changed = HashSet::new();
    for logged in batch {
        let conversation = &logged.entry.conversation;
        let change = is_change(&logged.entry);
        let conflicts = changed.contains(conversation) || (change && seen.contains(conversation));
        let same_app =
            |last: &Vec<LoggedEntry>| last.last().is_some_and(|last| last.entry.app == logged.entry.app);
        if conflicts || bytes + logged.size > MAX_BYTES || !segments.last().is_some_and(same_app) {
            segments.push(Vec::new());
            bytes = 0;
            seen.clear();
            changed.clear();
        }
        bytes += logged.size;
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
    use abi::v1::{GroupChange, Message};

    /// A batch of messages to these conversations. With a `!` it is a group change.
    fn batch(entries: &[&str]) -> Vec<LoggedEntry> {
        let logged = |(index, text): (usize, &&str)| {
            let (conversation, content) = match text.strip_suffix('!') {
                Some(conversation) => (conversation, Content::GroupChange(GroupChange::default())),
                None => (*text, Content::Message(Message::default())),
            };
            let entry =
                Entry { conversation: conversation.into(), content: Some(content), ..Entry::default() };
            LoggedEntry { index, size: 1, entry }
        };
        entries.iter().enumerate().map(logged).collect()
    }

    fn lengths(batch: Vec<LoggedEntry>) -> Vec<usize> {
        let segments = split(batch.clone());
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
    fn a_segment_has_one_application_and_a_bounded_size() {
        let mut logged = batch(&["a", "a", "a"]);
        logged[1].entry.app = "other".into();
        assert_eq!(lengths(logged), [1, 1, 1]);
        let mut logged = batch(&["a", "a", "a", "a"]);
        for logged in &mut logged {
            logged.size = MAX_BYTES / 2;
        }
        assert_eq!(lengths(logged), [2, 2]);
    }
}
