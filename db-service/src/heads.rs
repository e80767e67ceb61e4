//! Heads: the state of a conversation that a list of conversations shows.

use crate::{
    entries::{EntryPage, EntryRow, StateRow},
    error::Result,
    item::number,
    store::EncodedHead,
    visibility::Visibility,
};
use abi::{
    envelope::put_bytes,
    v1::{ConversationSettings, Head},
};
use prost::{
    Message as _,
    bytes::{Bytes, BytesMut},
};

/// Field `last` of [`Head`]. A test compares it with the generated code.
const LAST: u32 = 12;
/// Field `settings` of [`Head`].
const SETTINGS: u32 = 13;

/// A user's row of the members, joined with the conversation.
#[derive(Clone, Debug)]
pub(crate) struct HeadRow {
    /// Conversation id.
    pub(crate) conversation: String,
    /// `conversation_seq` of the last entry that the user can see.
    pub(crate) head: i64,
    /// `countable_seq` of that entry.
    pub(crate) countable: i64,
    /// The user's read position.
    pub(crate) read_seq: i64,
    /// `countable_seq` at the read position.
    pub(crate) read_countable: i64,
    /// Countable entries after the read position that do not count as unread.
    pub(crate) excluded: i64,
    /// First entry that the user can see.
    pub(crate) visible_from: i64,
    /// Last entry that a former member can see.
    pub(crate) visible_until: Option<i64>,
    /// Name of the group.
    pub(crate) name: String,
    /// The user's role.
    pub(crate) role: i32,
    /// When `last` was sent, in milliseconds.
    pub(crate) last_sent_at_ms: i64,
    /// Last entry from before this generation of the data.
    pub(crate) kept: i64,
    /// The greatest read position of the other members. 0: none, or receipts are not sent.
    pub(crate) read_by_any: i64,
    /// The least read position of the other members.
    pub(crate) read_by_all: i64,
}

/// Number of unread entries between a read position and the end of what a user can see.
pub(crate) fn unread(countable: i64, read_countable: i64, excluded: i64) -> u64 {
    number((countable - read_countable - excluded).max(0))
}

/// Encodes a head. `last`: the last entry that is not a change of an entry, with its state.
///
/// # Errors
/// The entry is corrupt.
pub(crate) fn encoded(row: HeadRow, last: Option<(EntryRow, Option<StateRow>)>) -> Result<EncodedHead> {
    let head = Head {
        conversation: row.conversation,
        conversation_seq: number(row.head),
        countable_seq: number(row.countable),
        read_seq: number(row.read_seq),
        unread: unread(row.countable, row.read_countable, row.excluded),
        visible_from: number(row.visible_from),
        visible_until: row.visible_until.map_or(0, number),
        name: row.name,
        role: row.role,
        last_sent_at_ms: row.last_sent_at_ms,
        kept_seq: number(row.kept),
        read_by_any_seq: number(row.read_by_any),
        read_by_all_seq: number(row.read_by_all),
        last: None,
        settings: None,
    };
    let mut bytes = BytesMut::from(&head.encode_to_vec()[..]);
    if let Some((entry, state)) = last {
        // The last entry is never an edit, so absences need not be known.
        let visibility =
            Visibility { from: row.visible_from, until: row.visible_until, absences: Vec::new() };
        let states: Vec<_> = state.into_iter().collect();
        let page = EntryPage { conversation: &head.conversation, visibility: &visibility, states: &states };
        put_bytes(LAST, &page.entry(&entry)?, &mut bytes);
    }
    Ok(EncodedHead { conversation: head.conversation, head: bytes.freeze() })
}

/// An encoded head with the settings of its user.
pub(crate) fn with_settings(head: &Bytes, settings: &ConversationSettings) -> Bytes {
    let mut bytes = BytesMut::from(&head[..]);
    put_bytes(SETTINGS, &settings.encode_to_vec(), &mut bytes);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_head_are_those_of_the_generated_code() {
        let row = HeadRow {
            conversation: "d:a:b".into(),
            head: 9,
            countable: 8,
            read_seq: 3,
            read_countable: 2,
            excluded: 4,
            visible_from: 1,
            visible_until: Some(9),
            name: "name".into(),
            role: 1,
            last_sent_at_ms: 7,
            kept: 6,
            read_by_any: 5,
            read_by_all: 4,
        };
        let entry = EntryRow {
            seq: 9,
            countable: 8,
            id: Bytes::from(vec![0x11; 16]),
            kind: None,
            target_seq: None,
            payload: Bytes::new(),
        };
        let settings = ConversationSettings { pinned: true, ..ConversationSettings::default() };
        let encoded = encoded(row, Some((entry, None))).unwrap();
        let head = Head::decode(with_settings(&encoded.head, &settings)).unwrap();
        assert_eq!((head.unread, head.conversation_seq, head.visible_until), (2, 9, 9));
        assert_eq!(head.settings, Some(settings));
        let last = head.last.unwrap();
        assert_eq!((last.conversation, last.message_id), ("d:a:b".into(), "11".repeat(16)));
        assert_eq!(last.conversation_seq, 9);
    }
}
