//! The results of saving and checking an entry.

use crate::{
    item::number,
    rules::{
        Effect, Group,
        entries::{EntryEffect, State, Target},
    },
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{GroupChange, SaveOutcome, SaveResult},
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
    /// The rules allow it. Its effect, and whether later members see the entries from before they joined.
    Allowed(Effect, bool),
}

impl Decision {
    /// The decision of the rules about a group, which is `None` if it does not exist yet.
    pub(crate) fn new(decided: Result<Effect, ApiError>, group: Option<&Group>) -> Self {
        match decided {
            Err(error) => Self::Refused(error),
            Ok(effect) => {
                let created = effect.created.as_ref().is_some_and(|(_, history_all)| *history_all);
                let history_all = group.map_or(created, |group| group.history_all);
                Self::Allowed(effect, history_all)
            }
        }
    }
}

/// Whether a change of an entry may be stored.
pub(crate) enum EntryDecision {
    /// It is stored already. The state of the entry that it refers to.
    Duplicate(EntrySeqs, Option<State>),
    /// The rules forbid it.
    Refused(ApiError),
    /// The rules allow it. The entry that it changes, and its effect.
    Allowed(Target, EntryEffect),
}

impl EntryDecision {
    /// The decision of the rules about an entry.
    ///
    /// # Errors
    /// The rules have allowed the change of an entry that does not exist.
    pub(crate) fn new(
        decided: Result<EntryEffect, ApiError>,
        target: Option<Target>,
    ) -> Result<Self, crate::Error> {
        match (decided, target) {
            (Err(error), _) => Ok(Self::Refused(error)),
            (Ok(effect), Some(target)) => Ok(Self::Allowed(target, effect)),
            (Ok(_), None) => Err(crate::Error::Corrupt("a change of a missing entry was allowed")),
        }
    }
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

/// The result of a group change that is stored, with the group after it and the users whom it removed.
pub(crate) fn accepted_in(
    outcome: SaveOutcome,
    seqs: EntrySeqs,
    group: Option<Group>,
    removed: Vec<String>,
) -> SaveResult {
    SaveResult { members: group.map(Into::into), removed, ..accepted(outcome, seqs) }
}

/// The result of a change of an entry that is stored, with the state of that entry after it.
pub(crate) fn accepted_with(outcome: SaveOutcome, seqs: EntrySeqs, state: Option<State>) -> SaveResult {
    SaveResult { target_state: state.map(Into::into), ..accepted(outcome, seqs) }
}

/// The result of an entry that is not stored.
pub(crate) fn rejected(error: ApiError) -> SaveResult {
    SaveResult { outcome: SaveOutcome::Rejected.into(), error: Some(error.into()), ..SaveResult::default() }
}

/// Marks the duplicates among the results of records that an earlier save has decided.
pub(crate) fn mark_redelivered(results: &mut [SaveResult]) {
    for result in results {
        result.is_redelivered = result.outcome() == SaveOutcome::Duplicate;
    }
}

/// The error of an entry that an earlier save has rejected, if the rules would allow it by now. The gateway has answered its sender
/// with the rejection, and later entries have its number.
pub(crate) fn rejected_before() -> ApiError {
    ApiError::forbidden("the store rejected this entry when the log first delivered it, and rejects it again")
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

/// Whether the payload of a stored entry contains this group change.
///
/// # Errors
/// The payload is damaged.
pub(crate) fn is_same_change(change: &GroupChange, payload: Vec<u8>) -> Result<bool, crate::Error> {
    let stored = abi::envelope::envelope(&payload.into())
        .map_err(|_| crate::Error::Corrupt("the payload of an entry"))?;
    Ok(stored.group_change.unwrap_or_default() == *change)
}
