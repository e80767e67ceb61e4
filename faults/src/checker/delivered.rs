//! Checks everything that the server pushed to devices or listed in heads, whether or not the device showed it.
//!
//! If entries before a pushed one are missing, the device requests them. If the user has no right to them, the request is
//! refused and the device drops the pushed entry unseen. So the receipts alone would miss an unauthorised push.

use super::{
    evidence::{Evidence, Membership},
    verdict::{Verdict, Violation},
};
use crate::ledger::{Conversation, DeviceId, FailedRead, Id, Observation, User};

/// P1, P8: a delivered entry is stored as delivered, and the user may see it. P4: the user can read it afterwards.
pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for (number, device) in evidence.ledger.devices.iter().enumerate() {
        let number = number as DeviceId;
        for observation in device.incarnations.iter().flat_map(|incarnation| &incarnation.observations) {
            match *observation {
                Observation::Delivered { conversation, conversation_seq, message_id, digest, .. } => {
                    let entry = (message_id, digest);
                    check_delivery(evidence, number, conversation, conversation_seq, entry, verdict);
                }
                Observation::Head { conversation, conversation_seq, visible_from } => {
                    check_head(evidence, number, conversation, conversation_seq, visible_from, verdict);
                }
                Observation::ReadPositionRegressed { conversation, read, known, at } => {
                    verdict.report(Violation::Mismatch, || {
                        format!(
                            "{} got {read} at {at} ms as the read position of {}, after {known}",
                            evidence.device(number),
                            evidence.id(conversation)
                        )
                    });
                }
                Observation::Unreadable { conversation, conversation_seq, answer, at }
                    if answer == FailedRead::Empty || never_left(evidence, conversation, device.user) =>
                {
                    verdict.report(Violation::FalseClaim, || {
                        format!(
                            "{} got {conversation_seq} of {} at {at} ms, but reading it then failed: {answer:?}",
                            evidence.device(number),
                            evidence.id(conversation)
                        )
                    });
                }
                Observation::Unreadable { .. }
                | Observation::Entry(_)
                | Observation::Complete { .. }
                | Observation::ReadPosition { .. }
                | Observation::Signal { .. }
                | Observation::UpToDate { .. } => {}
            }
        }
    }
}

/// Whether a user has been a member without interruption since joining. Other users may have been removed when they
/// asked, or added again without access to earlier entries.
fn never_left(evidence: &Evidence<'_>, conversation: Conversation, user: User) -> bool {
    matches!(evidence.memberships(conversation, user), [membership] if membership.left.is_none())
}

fn check_delivery(
    evidence: &Evidence<'_>,
    device: DeviceId,
    conversation: Conversation,
    seq: u32,
    entry: (Id, u64),
    verdict: &mut Verdict,
) {
    let delivery = || format!("{} got {seq} of {}", evidence.device(device), evidence.id(conversation));
    let user = evidence.ledger.devices[device as usize].user;
    if evidence.membership_at(conversation, user, seq.into()).is_none() {
        verdict.report(Violation::Unauthorised, || format!("{}, and may not see it", delivery()));
    }
    let stored = evidence.at(conversation, seq.into()).map(|stored| (stored.message_id, stored.digest));
    if stored != Some(entry) {
        verdict.report(Violation::Mismatch, || {
            format!("{} as {entry:?}, but the store has {stored:?}", delivery())
        });
    }
}

/// P8: only a member, or a former one up to the entry that removed it, has a head.
fn check_head(
    evidence: &Evidence<'_>,
    device: DeviceId,
    conversation: Conversation,
    seq: u32,
    visible_from: u32,
    verdict: &mut Verdict,
) {
    let (seq, visible_from) = (u64::from(seq), u64::from(visible_from));
    let user = evidence.ledger.devices[device as usize].user;
    let memberships = evidence.memberships(conversation, user);
    let covers =
        |membership: &Membership| membership.joined <= seq && membership.left.is_none_or(|left| seq <= left);
    // The first entry that the user may see in any membership until then.
    let until = memberships.iter().filter(|membership| membership.joined <= seq);
    let first_visible = until.map(|membership| membership.visible_from).min();
    if !memberships.iter().any(covers) || first_visible != Some(visible_from) {
        verdict.report(Violation::Unauthorised, || {
            format!(
                "{} got the head {seq} of {}, visible from {visible_from}; the user's memberships are {memberships:?}",
                evidence.device(device),
                evidence.id(conversation)
            )
        });
    }
}
