//! Checks the entries that devices showed against the store.

use super::{
    edits,
    evidence::Evidence,
    verdict::{Verdict, Violation},
};
use crate::ledger::{Conversation, DeviceId, Incarnation, Observation, Receipt};
use std::collections::HashMap;

/// The progress of one incarnation in a conversation.
#[derive(Default)]
struct Progress {
    /// The position in the saved state.
    began: u64,
    /// The highest `conversation_seq` shown, or the position in the saved state.
    last: u64,
    shown: Vec<u64>,
}

/// Every incarnation showed the right entries, each once, in order and without gaps. The last incarnation showed all of
/// them.
pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for (number, device) in evidence.ledger.devices.iter().enumerate() {
        let number = number as DeviceId;
        let mut reached = HashMap::new();
        for (index, incarnation) in device.incarnations.iter().enumerate() {
            check_saved_state(evidence, number, incarnation, &reached, verdict);
            let progress = check_incarnation(evidence, number, incarnation, verdict);
            for (conversation, progress) in &progress {
                let reached: &mut u64 = reached.entry(*conversation).or_default();
                *reached = progress.last.max(*reached);
            }
            if index + 1 == device.incarnations.len() {
                check_end(evidence, number, &progress, verdict);
            }
        }
    }
}

/// A saved state must not be ahead of the shown entries: the device never requests the entries in between.
fn check_saved_state(
    evidence: &Evidence<'_>,
    device: DeviceId,
    incarnation: &Incarnation,
    reached: &HashMap<Conversation, u64>,
    verdict: &mut Verdict,
) {
    let user = evidence.ledger.devices[device as usize].user;
    for &(conversation, position) in &incarnation.positions {
        let position = u64::from(position);
        // A position may also be one less than the first entry that the user may see.
        let Some(membership) = evidence.current_membership(conversation, user) else { continue };
        let expected = membership.visible_from.max(reached.get(&conversation).copied().unwrap_or(0) + 1);
        if expected <= position {
            verdict.report(Violation::Incomplete, || {
                format!(
                    "{} began at {} ms with a state that has {expected} to {position} of {}, which it never showed",
                    evidence.device(device),
                    incarnation.began,
                    evidence.id(conversation)
                )
            });
            report_lost(evidence, device, conversation, expected..position + 1, verdict);
        }
    }
}

fn check_incarnation(
    evidence: &Evidence<'_>,
    device: DeviceId,
    incarnation: &Incarnation,
    verdict: &mut Verdict,
) -> HashMap<Conversation, Progress> {
    let start = |(conversation, position): &(Conversation, u32)| {
        let at = u64::from(*position);
        (*conversation, Progress { began: at, last: at, shown: Vec::new() })
    };
    let mut progress: HashMap<_, _> = incarnation.positions.iter().map(start).collect();
    for observation in &incarnation.observations {
        if let Observation::Entry(receipt) = observation {
            let progress = progress.entry(receipt.conversation).or_default();
            check_receipt(evidence, device, receipt, progress, verdict);
        }
    }
    progress
}

fn check_receipt(
    evidence: &Evidence<'_>,
    device: DeviceId,
    receipt: &Receipt,
    progress: &mut Progress,
    verdict: &mut Verdict,
) {
    let Receipt { conversation, message_id, digest, state, at, .. } = *receipt;
    let seq = u64::from(receipt.conversation_seq);
    let user = evidence.ledger.devices[device as usize].user;
    let showed =
        || format!("{} showed {seq} of {} at {at} ms", evidence.device(device), evidence.id(conversation));
    match evidence.at(conversation, seq) {
        Some(stored)
            if stored.message_id == message_id
                && edits::is_version(evidence, conversation, stored, digest, state) => {}
        Some(stored) if stored.message_id == message_id => {
            verdict.report(Violation::Mismatch, || {
                format!("{}, but the stored entries never made it that", showed())
            });
        }
        Some(stored) => {
            let other = stored.message_id;
            verdict.report(Violation::Mismatch, || {
                format!("{} as {message_id}, but {other} is stored there", showed())
            });
        }
        None => verdict.report(Violation::Mismatch, || format!("{}, but nothing is stored there", showed())),
    }
    let membership = evidence.membership_at(conversation, user, seq);
    if membership.is_none() {
        verdict.report(Violation::Unauthorised, || format!("{}, and may not see it", showed()));
    }
    if seq <= progress.last {
        if seq <= progress.began || progress.shown.contains(&seq) {
            verdict.report(Violation::Duplicated, || format!("{}, a second time", showed()));
        } else {
            verdict.report(Violation::OutOfOrder, || format!("{}, after {}", showed(), progress.last));
        }
        return;
    }
    let expected = membership.map_or(seq, |membership| membership.visible_from.max(progress.last + 1));
    // An entry that is not stored either is a gap of the store, and reported as such.
    if (expected..seq).any(|missing| evidence.at(conversation, missing).is_some()) {
        verdict.report(Violation::Incomplete, || format!("{} without {expected} to {}", showed(), seq - 1));
        report_lost(evidence, device, conversation, expected..seq, verdict);
    }
    progress.last = seq;
    progress.shown.push(seq);
}

/// At the end of the run the device has every entry that its user may see.
fn check_end(
    evidence: &Evidence<'_>,
    device: DeviceId,
    progress: &HashMap<Conversation, Progress>,
    verdict: &mut Verdict,
) {
    let user = evidence.ledger.devices[device as usize].user;
    for conversation in 0..evidence.ledger.conversations.len() as Conversation {
        let Some(membership) = evidence.current_membership(conversation, user) else { continue };
        let last = progress.get(&conversation).map_or(0, |progress| progress.last);
        let head = evidence.head(conversation);
        let expected = membership.visible_from.max(last + 1);
        if expected <= head {
            verdict.report(Violation::Incomplete, || {
                format!(
                    "{} lacks {expected} to {head} of {} at the end",
                    evidence.device(device),
                    evidence.id(conversation)
                )
            });
            report_lost(evidence, device, conversation, expected..head + 1, verdict);
        }
    }
}

/// P1: the acknowledged messages among the entries that a device did not show are lost for that device.
fn report_lost(
    evidence: &Evidence<'_>,
    device: DeviceId,
    conversation: Conversation,
    missing: std::ops::Range<u64>,
    verdict: &mut Verdict,
) {
    for entry in missing.filter_map(|seq| evidence.at(conversation, seq)) {
        if evidence.is_acked(conversation, entry.message_id) {
            verdict.report(Violation::Lost, || {
                format!(
                    "{} of {} was acknowledged, but {} never showed it",
                    entry.conversation_seq,
                    evidence.id(conversation),
                    evidence.device(device)
                )
            });
        }
    }
}
