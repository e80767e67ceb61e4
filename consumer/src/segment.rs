//! A batch is cut where saving and looking up members at once would mix two moments.
//!
//! Members of a group are looked up once per segment. So a change of a group is the only entry of that group in its
//! segment: what comes before it goes to those who were members before, what comes after it to those who are
//! members then. Without changes, which is nearly always, a batch is one segment.

use abi::v1::{Entry, entry::Content};
use std::collections::HashSet;

/// Most bytes of a segment: well below what the store takes in one call.
const MAX_BYTES: usize = 8 << 20;

/// An entry from the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logged {
    /// Index of its record in the batch.
    pub(crate) index: usize,
    /// Bytes of its record.
    pub(crate) size: usize,
    /// The entry.
    pub(crate) entry: Entry,
}

/// Whether an entry changes who is in a group.
pub(crate) fn is_change(entry: &Entry) -> bool {
    matches!(entry.content, Some(Content::GroupChange(_)))
}

/// Cuts a batch. All entries of a segment are of one application.
pub(crate) fn segments(logged: Vec<Logged>) -> Vec<Vec<Logged>> {
    let any_change = logged.iter().any(|logged| is_change(&logged.entry));
    let mut segments: Vec<Vec<Logged>> = Vec::new();
    let mut bytes = 0;
    // Conversations of the present segment, and those of them that are changed by it. Empty where nothing changes.
    let mut seen = HashSet::new();
    let mut changed = HashSet::new();
    for logged in logged {
        let conversation = &logged.entry.conversation;
        let change = is_change(&logged.entry);
        let mixes = changed.contains(conversation) || (change && seen.contains(conversation));
        let same_app =
            |last: &Vec<Logged>| last.last().is_some_and(|last| last.entry.app == logged.entry.app);
        if mixes || bytes + logged.size > MAX_BYTES || !segments.last().is_some_and(same_app) {
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

    fn batch(entries: &[&str]) -> Vec<Logged> {
        let logged = |(index, text): (usize, &&str)| {
            let (conversation, content) = match text.strip_suffix('!') {
                Some(conversation) => (conversation, Content::GroupChange(GroupChange::default())),
                None => (*text, Content::Message(Message::default())),
            };
            let entry =
                Entry { conversation: conversation.into(), content: Some(content), ..Entry::default() };
            Logged { index, size: 1, entry }
        };
        entries.iter().enumerate().map(logged).collect()
    }

    fn lengths(logged: Vec<Logged>) -> Vec<usize> {
        let segments = segments(logged.clone());
        assert_eq!(segments.concat(), logged, "nothing is lost and the order is kept");
        segments.iter().map(Vec::len).collect()
    }

    #[test]
    fn p3_a_batch_is_cut_only_around_changes_of_the_same_group() {
        assert_eq!(lengths(batch(&[])), [0; 0]);
        assert_eq!(lengths(batch(&["a", "b", "a", "a"])), [4]);
        // Many new groups at once are one segment.
        assert_eq!(lengths(batch(&["a!", "b!", "c!", "d"])), [4]);
        assert_eq!(lengths(batch(&["a", "b", "a!", "a", "b"])), [2, 1, 2]);
        assert_eq!(lengths(batch(&["a!", "a!", "b", "a"])), [1, 2, 1]);
        assert_eq!(lengths(batch(&["a", "b!", "a", "b"])), [3, 1]);
    }

    #[test]
    fn a_segment_is_of_one_application_and_bounded() {
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
