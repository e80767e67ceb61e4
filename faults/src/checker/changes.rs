//! Checks membership changes, and sends of users whose membership changed.

use super::{
    evidence::Evidence,
    stored::acked,
    verdict::{Verdict, Violation},
};
use crate::{
    ledger::{Conversation, MembershipChange, Outcome, Send, User},
    store::{Content, Stored},
};
use std::collections::HashMap;

/// All checks of this module.
pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    check_order(evidence, verdict);
    check_stored(evidence, verdict);
}

/// P3: a membership change is stored after every message that was acknowledged before the change was requested.
fn check_order(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut by_group: HashMap<_, Vec<&MembershipChange>> = HashMap::new();
    for change in &evidence.ledger.changes {
        by_group.entry(change.conversation).or_default().push(change);
    }
    for (seq, at, send) in acked(evidence) {
        let changes = by_group.get(&send.conversation).map_or(&[][..], Vec::as_slice);
        let mut overtaking =
            changes.iter().filter(|change| at < change.began && seq > change.conversation_seq.into());
        if let Some(change) = overtaking.next() {
            verdict.report(Violation::OutOfOrder, || {
                let (send, user) = (evidence.send(send), evidence.user(change.user));
                format!("{send}, acknowledged at {at} ms, is stored as {seq}, after {change:?} of {user}")
            });
        }
    }
}

/// P1: a membership change is stored as it was answered. P8: a removed member cannot send. P9: a member is not refused.
fn check_stored(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut by_member: HashMap<(Conversation, User), Vec<&MembershipChange>> = HashMap::new();
    for change in &evidence.ledger.changes {
        let stored = evidence.seq_of(change.conversation, change.message_id);
        if stored != Some(u64::from(change.conversation_seq)) {
            let verb = if change.joined { "joined" } else { "was removed" };
            let violation = if stored.is_none() { Violation::Lost } else { Violation::Mismatch };
            verdict.report(violation, || {
                format!(
                    "{} {verb}, answered as {} of {}, but stored as {stored:?}",
                    evidence.user(change.user),
                    change.conversation_seq,
                    evidence.id(change.conversation)
                )
            });
        }
        if let Some(entry) = evidence.at(change.conversation, change.conversation_seq.into())
            && stored == Some(entry.conversation_seq)
            && !is_change(evidence, entry, change)
        {
            verdict.report(Violation::Mismatch, || {
                let (user, id) = (evidence.user(change.user), evidence.id(change.conversation));
                format!("{change:?} of {user} in {id} is stored as {:?}", entry.content)
            });
        }
        by_member.entry((change.conversation, change.user)).or_default().push(change);
    }
    for send in &evidence.ledger.sends {
        if let Some(changes) = by_member.get(&(send.conversation, evidence.sender(send))) {
            check_sender_membership(evidence, send, changes, verdict);
        }
    }
}

/// Checks a send of a user whose membership changed during the run.
fn check_sender_membership(
    evidence: &Evidence<'_>,
    send: &Send,
    changes: &[&MembershipChange],
    verdict: &mut Verdict,
) {
    let user = evidence.sender(send);
    // Changes of one user do not overlap, so the last one before the send determines the membership.
    let (before, after) = changes.split_at(changes.partition_point(|change| change.at < send.began));
    // An attempt may be in flight for a long time and arrive after the next change.
    let before_next_change = |at| after.first().is_none_or(|change| at < change.began);
    let was_in = before.last().map_or(evidence.is_member(send.conversation, user, 1), |change| change.joined);
    if was_in {
        if let Outcome::Refused { code, at, .. } = &send.outcome
            && code == "forbidden"
            && !send.forbidden
            && before_next_change(*at)
        {
            verdict.report(Violation::Stuck, || {
                format!("{} of a member was refused permanently", evidence.send(send))
            });
        }
        return;
    }
    let accepted = matches!(send.outcome, Outcome::Acked { at, .. } if before_next_change(at));
    // A message sent after the removal must be stored while the user is a member again, or not at all. It may also be stored
    // after the next removal, if that was in flight when an attempt was accepted. The outcome of the send does not matter.
    let stored = evidence.stored(send).map(|entry| entry.conversation_seq);
    let is_removed = |seq| {
        let known = changes.iter().rfind(|change| u64::from(change.conversation_seq) < seq);
        !evidence.is_member(send.conversation, user, seq)
            && known.is_none_or(|change| !change.joined && change.at < send.began)
    };
    if accepted || stored.is_some_and(is_removed) {
        verdict.report(Violation::Unauthorised, || {
            let removed = before.last().map_or(0, |change| change.at);
            format!(
                "{} was accepted from a member who had been removed at {removed} ms, and is stored as {stored:?}",
                evidence.send(send)
            )
        });
    }
}

/// Whether a stored entry is this change.
fn is_change(evidence: &Evidence<'_>, entry: &Stored, change: &MembershipChange) -> bool {
    let user = evidence.user(change.user);
    match &entry.content {
        Content::Added(users) => change.joined && *users == [user],
        Content::Removed(users) => !change.joined && *users == [user],
        Content::Left => !change.joined && entry.sender == user,
        _ => false,
    }
}
