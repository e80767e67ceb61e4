//! Encoded entries as users read them: with their numbers and their current state.

use crate::{
    error::{Error, Result},
    item::number,
    visibility::Visibility,
};
use abi::{
    envelope::{self, Numbers, field, put_bytes},
    ids,
    v1::{Entry, EntryState},
};
use prost::{
    Message as _,
    bytes::{BufMut as _, Bytes, BytesMut},
};

/// A row of the entries.
#[derive(Clone, Debug)]
pub(crate) struct EntryRow {
    /// `conversation_seq`.
    pub(crate) seq: i64,
    /// `countable_seq`.
    pub(crate) countable: i64,
    /// Message id.
    pub(crate) id: Bytes,
    /// Kind; `None` for a message.
    pub(crate) kind: Option<String>,
    /// `conversation_seq` of the entry that it refers to.
    pub(crate) target_seq: Option<i64>,
    /// The encoded entry without conversation and message id.
    pub(crate) payload: Bytes,
}

/// The current state of an entry that later entries have changed.
#[derive(Clone, Debug)]
pub(crate) struct StateRow {
    /// `conversation_seq` of the changed entry.
    pub(crate) seq: i64,
    /// `conversation_seq` of the last change.
    pub(crate) changed_seq: i64,
    /// Number of edits.
    pub(crate) edits: i64,
    /// When the last edit was sent, in milliseconds.
    pub(crate) edited_at_ms: i64,
    /// The user who has recalled the entry. Empty: it is not recalled.
    pub(crate) recalled_by: String,
    /// An encoded [`EntryState`] with only the reactions.
    pub(crate) reactions: Bytes,
    /// The payload of the last edit that the reader can see.
    pub(crate) edit: Option<Bytes>,
    /// The reader's reactions: an encoded [`Entry`] with only the reactions.
    pub(crate) mine: Option<Bytes>,
}

impl StateRow {
    /// The state in the form of the protocol.
    fn state(&self) -> Result<EntryState> {
        let corrupt = |_| Error::Corrupt("the reactions of an entry");
        let mut state = EntryState::decode(self.reactions.clone()).map_err(corrupt)?;
        state.changed_seq = number(self.changed_seq);
        state.edits = u32::try_from(self.edits).unwrap_or(u32::MAX);
        state.edited_at_ms = self.edited_at_ms;
        state.recalled_by.clone_from(&self.recalled_by);
        if let Some(mine) = &self.mine {
            let mine = Entry::decode(mine.clone()).map_err(corrupt)?.reactions;
            for count in &mut state.reactions {
                count.mine = mine.contains(&count.reaction);
            }
        }
        Ok(state)
    }
}

/// A page of entries and the states that belong to it.
pub(crate) struct EntryPage<'a> {
    /// Conversation id.
    pub(crate) conversation: &'a str,
    /// The entries that the reader can see.
    pub(crate) visibility: &'a Visibility,
    /// States of the entries of the page and of the targets of its edits, ordered by `seq`.
    pub(crate) states: &'a [StateRow],
}

impl EntryPage<'_> {
    /// An encoded entry with its numbers and its current content.
    ///
    /// # Errors
    /// The row is corrupt.
    pub(crate) fn entry(&self, row: &EntryRow) -> Result<Bytes> {
        let state = self.state(row.seq);
        let payload = self.payload(row, state).map_err(|_| Error::Corrupt("the payload of an entry"))?;
        let id = ids::hex(&row.id);
        let mut bytes = BytesMut::with_capacity(payload.len() + self.conversation.len() + id.len() + 32);
        put_bytes(field::CONVERSATION, self.conversation.as_bytes(), &mut bytes);
        put_bytes(field::MESSAGE_ID, id.as_bytes(), &mut bytes);
        bytes.put(payload);
        let numbers = Numbers {
            conversation_seq: number(row.seq),
            countable_seq: number(row.countable),
            refers_to_seq: row.target_seq.map_or(0, number),
            state: state.map(StateRow::state).transpose()?,
            target_state: None,
        };
        Ok(envelope::numbered(&bytes, &numbers))
    }

    fn payload(&self, row: &EntryRow, state: Option<&StateRow>) -> Result<Bytes, prost::DecodeError> {
        if state.is_some_and(|state| !state.recalled_by.is_empty()) || self.is_stripped(row) {
            return envelope::without(&row.payload, &[field::CONTENT]);
        }
        match state.and_then(|state| state.edit.as_ref()) {
            Some(edit) => envelope::with_content_of(&row.payload, edit),
            None => Ok(row.payload.clone()),
        }
    }

    /// Whether the entry is an edit of an entry that is recalled, or that the reader can't see.
    fn is_stripped(&self, row: &EntryRow) -> bool {
        let Some(target) = row.target_seq.filter(|_| is_edit(row)) else { return false };
        !self.visibility.contains(target)
            || self.state(target).is_some_and(|state| !state.recalled_by.is_empty())
    }

    fn state(&self, seq: i64) -> Option<&StateRow> {
        self.states.binary_search_by_key(&seq, |state| state.seq).ok().map(|index| &self.states[index])
    }
}

/// The entries whose states a page needs: the first and the last entry of the page, and the targets of its edits outside of them.
pub(crate) fn wanted_states(rows: &[EntryRow]) -> (i64, i64, Vec<i64>) {
    let first = rows.iter().map(|row| row.seq).min().unwrap_or(0);
    let last = rows.iter().map(|row| row.seq).max().unwrap_or(0);
    let targets = rows.iter().filter(|row| is_edit(row)).filter_map(|row| row.target_seq);
    let mut outside: Vec<_> = targets.filter(|target| !(first..=last).contains(target)).collect();
    outside.sort_unstable();
    outside.dedup();
    (first, last, outside)
}

fn is_edit(row: &EntryRow) -> bool {
    row.kind.as_deref() == Some(envelope::EDIT)
}
