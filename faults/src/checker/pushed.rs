//! What the server sent to devices by itself or named to them, whether or not they could show it.
//!
//! A device that lacks what is before an entry asks for it. What was never meant for it is refused then, and the entry is
//! dropped without having been shown; so what it got is compared here, and not only what it showed.

use super::{
    Kind, Verdict,
    case::{Case, Stay},
};
use crate::ledger::{Conversation, DeviceId, Id, Instead, Seen, User};

/// P1, P8: what was delivered is stored as it was delivered, and for this user; P4: it can be read.
pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict) {
    for (number, device) in case.ledger.devices.iter().enumerate() {
        let number = number as DeviceId;
        for seen in device.lives.iter().flat_map(|life| &life.seen) {
            match *seen {
                Seen::Counted { conversation, conversation_seq, message_id, digest, .. } => {
                    delivered(case, number, conversation, conversation_seq, (message_id, digest), verdict);
                }
                Seen::Head { conversation, conversation_seq, visible_from } => {
                    named(case, number, conversation, conversation_seq, visible_from, verdict);
                }
                Seen::Unread { conversation, read, known, at } => {
                    verdict.find(Kind::Untrue, || {
                        format!(
                            "{} was told at {at} ms that {} is read up to {read}, after {known}",
                            case.device(number),
                            case.id(conversation)
                        )
                    });
                }
                Seen::Unreadable { conversation, conversation_seq, answer, at }
                    if answer == Instead::Nothing || stayed(case, conversation, device.user) =>
                {
                    verdict.find(Kind::Lied, || {
                        format!(
                            "{} was delivered {conversation_seq} of {} at {at} ms, and could not read it then: {answer:?}",
                            case.device(number),
                            case.id(conversation)
                        )
                    });
                }
                Seen::Unreadable { .. } | Seen::Entry(_) | Seen::Complete { .. } | Seen::UpToDate { .. } => {}
            }
        }
    }
}

/// Whether a user was never out of a conversation since they came. Others may have been out when they asked, or in again, and
/// then not see what was before.
fn stayed(case: &Case<'_>, conversation: Conversation, user: User) -> bool {
    matches!(case.stays(conversation, user), [stay] if stay.to.is_none())
}

fn delivered(
    case: &Case<'_>,
    device: DeviceId,
    conversation: Conversation,
    seq: u32,
    entry: (Id, u64),
    verdict: &mut Verdict,
) {
    let what = || format!("{} was delivered {seq} of {}", case.device(device), case.id(conversation));
    let user = case.ledger.devices[device as usize].user;
    if case.stay(conversation, user, seq.into()).is_none() {
        verdict.find(Kind::Unauthorised, || format!("{}, and may not see it", what()));
    }
    let stored = case.at(conversation, seq.into()).map(|stored| (stored.message_id, stored.digest));
    if stored != Some(entry) {
        verdict.find(Kind::Untrue, || format!("{} as {entry:?}, and stored is {stored:?}", what()));
    }
}

/// Only members have a head, and it is of one moment: who was out again is told nothing from then on.
fn named(
    case: &Case<'_>,
    device: DeviceId,
    conversation: Conversation,
    seq: u32,
    visible_from: u32,
    verdict: &mut Verdict,
) {
    let (seq, visible_from) = (u64::from(seq), u64::from(visible_from));
    let user = case.ledger.devices[device as usize].user;
    let stays = case.stays(conversation, user);
    let is_member = |stay: &Stay| stay.joined <= seq && stay.to.is_none_or(|to| seq < to);
    if !stays.iter().any(|stay| is_member(stay) && stay.from == visible_from) {
        verdict.find(Kind::Unauthorised, || {
            format!(
                "{} was told of {} up to {seq}, visible from {visible_from}; the user was in it as {stays:?}",
                case.device(device),
                case.id(conversation)
            )
        });
    }
}
