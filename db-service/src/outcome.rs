//! The results of saving and checking an entry.

use crate::{
    item::number,
    rules::{Effect, Group, entries::State},
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{SaveOutcome, SaveResult},
};

/// The sequence numbers of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntrySeqs {
    /// `conversation_seq`.
    pub(crate) seq: i64,
    /// `countable_seq`.
    pub(crate) countable: i64,
    /// `conversation_seq` of the entry that this one refers to. 0: none.
    pub(crate) target: i64,
}

/// Whether a group change may be stored.
pub(crate) enum Decision {
    /// It is stored already.
    Duplicate(EntrySeqs),
    /// The rules forbid it.
    Refused(ApiError),
    /// The rules allow it. This is its effect.
    Allowed(Effect),
}

/// The result of an entry that is stored.
pub(crate) fn accepted(outcome: SaveOutcome, seqs: EntrySeqs) -> SaveResult {
    SaveResult {
        outcome: outcome.into(),
        conversation_seq: number(seqs.seq),
        countable_seq: number(seqs.countable),
        refers_to_seq: number(seqs.target),
        ..SaveResult::default()
    }
}

/// The result of a group change that is stored, with the group after it.
pub(crate) fn accepted_in(outcome: SaveOutcome, seqs: EntrySeqs, group: Option<Group>) -> SaveResult {
    SaveResult { members: group.map(Into::into), ..accepted(outcome, seqs) }
}

/// The result of a change of an entry that is stored, with the state of that entry after it.
pub(crate) fn accepted_with(outcome: SaveOutcome, seqs: EntrySeqs, state: Option<State>) -> SaveResult {
    SaveResult { target_state: state.map(Into::into), ..accepted(outcome, seqs) }
}

/// The result of an entry that is not stored.
pub(crate) fn rejected(error: ApiError) -> SaveResult {
    SaveResult { outcome: SaveOutcome::Rejected.into(), error: Some(error.into()), ..SaveResult::default() }
}

/// The error for a sender who is not a member. It must not depend on whether the conversation exists.
pub(crate) fn outsider() -> ApiError {
    ApiError::forbidden("you are not a member of this conversation")
}

/// The error of a question about a missing group.
pub(crate) fn group_not_found() -> ApiError {
    ApiError::not_found("there is no such group")
}

/// The error of a group change whose message id belongs to a different change.
pub(crate) fn request_id_conflict() -> ApiError {
    ApiError::new(ErrorCode::Conflict, "this request_id was used for another change: choose a new one")
}

/// The error of a group change in a direct conversation.
pub(crate) fn not_a_group() -> ApiError {
    ApiError::invalid("only a group can be changed; this is a direct conversation")
}
