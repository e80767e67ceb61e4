//! Checks the signals that devices got. Any signal may be lost.

use super::{
    evidence::Evidence,
    verdict::{Verdict, Violation},
};
use crate::ledger::{Conversation, DeviceId, MembershipChange, Millis, Observation, User};
use std::collections::HashSet;

/// How long a signal without a number may have been on its way, in milliseconds.
const ON_ITS_WAY: Millis = 60_000;

/// A signal as a device got it.
#[derive(Clone, Copy)]
struct Signal {
    conversation: Conversation,
    user: User,
    number: Option<u32>,
    at: Millis,
}

/// P2: a device gets a signal once, as it was sent. P8: only members send signals, and only members get them.
pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for (number, device) in (0..).zip(&evidence.ledger.devices) {
        let mut seen = HashSet::new();
        for observation in device.incarnations.iter().flat_map(|incarnation| &incarnation.observations) {
            let Observation::Signal { conversation, user, number: content, at } = *observation else {
                continue;
            };
            let is_new = content.is_none_or(|content| seen.insert(content));
            let signal = Signal { conversation, user, number: content, at };
            let found = if is_new { problem(evidence, number, signal) } else { Some(Violation::Duplicated) };
            if let Some(violation) = found {
                let (device, id) = (evidence.device(number), evidence.id(conversation));
                let sender = evidence.user(user);
                verdict.report(violation, || {
                    format!("{device} got the signal {content:?} of {sender} in {id} at {at} ms")
                });
            }
        }
    }
}

fn problem(evidence: &Evidence<'_>, device: DeviceId, signal: Signal) -> Option<Violation> {
    let Signal { conversation, user, number, at } = signal;
    let began = match number {
        None => at.saturating_sub(ON_ITS_WAY),
        Some(number) => match evidence.ledger.signals.get(number as usize) {
            Some(sent) if (sent.user, sent.conversation) == (user, conversation) => sent.began,
            _ => return Some(Violation::Mismatch),
        },
    };
    let receiver = evidence.ledger.devices[device as usize].user;
    let is_allowed = may_be_member(evidence, conversation, user, began, at)
        && may_be_member(evidence, conversation, receiver, began, at);
    (!is_allowed).then_some(Violation::Unauthorised)
}

/// Whether a user may have been a member at some time of an interval.
fn may_be_member(
    evidence: &Evidence<'_>,
    conversation: Conversation,
    user: User,
    began: Millis,
    ended: Millis,
) -> bool {
    if evidence.memberships(conversation, user).is_empty() {
        return false;
    }
    let own = |change: &&MembershipChange| (change.conversation, change.user) == (conversation, user);
    let mut changes = evidence.ledger.changes.iter().filter(own);
    let before = changes.clone().rfind(|change| change.at < began);
    let changed_meanwhile = changes.any(|change| change.at >= began && change.began <= ended);
    changed_meanwhile || before.is_none_or(|change| change.joined)
}
