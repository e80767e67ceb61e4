//! Checks edits, recalls and reactions in the store, in deliveries and in histories.

use super::{
    evidence::Evidence,
    verdict::{Verdict, Violation},
    versions::is_change,
};
use crate::{
    ledger::{self, Conversation, Observation, User},
    store::{Content, Stored},
};

/// All checks of this module.
pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for conversation in 0..evidence.ledger.conversations.len() as Conversation {
        for entry in evidence.entries(conversation).iter().filter(|entry| is_change(entry)) {
            if let Err(reason) = is_allowed(evidence, conversation, entry) {
                let id = evidence.id(conversation);
                verdict.report(Violation::Unauthorised, || format!("{id} holds {entry:?}, but {reason}"));
            }
        }
    }
    check_live_states(evidence, verdict);
}

/// P8: whether the sender was allowed to make a change at its place among the entries.
///
/// # Errors
/// Why the server had to refuse it.
fn is_allowed(evidence: &Evidence<'_>, conversation: Conversation, entry: &Stored) -> Result<(), String> {
    let seq = entry.conversation_seq;
    let target = entry
        .refers_to
        .and_then(|id| evidence.seq_of(conversation, id))
        .filter(|target| *target < seq)
        .and_then(|target| evidence.at(conversation, target))
        .ok_or("there is no such earlier entry")?;
    if !matches!(target.content, Content::Message { .. }) {
        return Err(format!("{target:?} is no message"));
    }
    let earlier = evidence.versions(conversation, target.conversation_seq).iter();
    if earlier.filter(|version| version.state.changed_seq < seq).any(|version| version.is_recalled()) {
        return Err("the message had been recalled".into());
    }
    let is_own = target.sender == entry.sender;
    if !is_own && matches!(entry.content, Content::Edit | Content::Recall) {
        return Err(format!("{} wrote the message", target.sender));
    }
    let sender = evidence.user_named(&entry.sender).ok_or("its sender is unknown")?;
    if !evidence.is_member(conversation, sender, seq) {
        return Err("its sender was not a member".into());
    }
    Ok(())
}

/// P4: a change that is delivered live carries the state of its message after it, or a later one.
fn check_live_states(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for (number, device) in (0..).zip(&evidence.ledger.devices) {
        for observation in device.incarnations.iter().flat_map(|incarnation| &incarnation.observations) {
            let Observation::Delivered { conversation, conversation_seq, target_state, .. } = *observation
            else {
                continue;
            };
            let Some(entry) = evidence.at(conversation, conversation_seq.into()) else { continue };
            if !has_live_state(evidence, conversation, entry, target_state) {
                verdict.report(Violation::Mismatch, || {
                    format!(
                        "{} got {conversation_seq} of {} with a state of its message that a replay of the entries does not have",
                        evidence.device(number),
                        evidence.id(conversation)
                    )
                });
            }
        }
    }
}

fn has_live_state(evidence: &Evidence<'_>, conversation: Conversation, entry: &Stored, state: u64) -> bool {
    if !is_change(entry) {
        return state == 0;
    }
    let target = entry.refers_to.and_then(|id| evidence.seq_of(conversation, id)).unwrap_or_default();
    let versions = evidence.versions(conversation, target).iter();
    versions
        .filter(|version| version.state.changed_seq >= entry.conversation_seq)
        .any(|version| ledger::state_of(Some(&version.state)) == state)
}

/// Whether a device may have read an entry with this content and this state at some time.
pub(super) fn is_version(
    evidence: &Evidence<'_>,
    conversation: Conversation,
    entry: &Stored,
    digest: u64,
    state: u64,
) -> bool {
    let versions = evidence.versions(conversation, entry.conversation_seq);
    let has_digest = digest == entry.digest
        || versions.iter().any(|version| ledger::digest(entry.identity, version.body) == digest)
        || (matches!(entry.content, Content::Edit)
            && digest == ledger::digest(entry.identity, ledger::body_of(None)));
    let has_state =
        state == 0 || versions.iter().any(|version| ledger::state_of(Some(&version.state)) == state);
    has_digest && has_state
}

/// The digests of content and state with which a user reads an entry after the last change.
pub(super) fn last_version(
    evidence: &Evidence<'_>,
    conversation: Conversation,
    entry: &Stored,
    user: User,
) -> (u64, u64) {
    if matches!(entry.content, Content::Edit) {
        let target = entry.refers_to.and_then(|id| evidence.seq_of(conversation, id)).unwrap_or_default();
        let is_recalled =
            evidence.versions(conversation, target).last().is_some_and(|version| version.is_recalled());
        let is_shown = !is_recalled && evidence.membership_at(conversation, user, target).is_some();
        let hidden = ledger::digest(entry.identity, ledger::body_of(None));
        return (if is_shown { entry.digest } else { hidden }, 0);
    }
    let versions = evidence.versions(conversation, entry.conversation_seq);
    let Some(last) = versions.last() else { return (entry.digest, 0) };
    let state = last.own_state(evidence.user(user));
    // A former member does not see the texts of later edits.
    let until = evidence.memberships(conversation, user).last().and_then(|membership| membership.left);
    let seen = if last.is_recalled() {
        Some(last)
    } else {
        versions.iter().rfind(|version| until.is_none_or(|until| version.state.changed_seq <= until))
    };
    (seen.map_or(entry.digest, |seen| ledger::digest(entry.identity, seen.body)), state)
}
