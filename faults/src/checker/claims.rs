//! Checks the receiver seq of devices against the entries that they had.
//!
//! The server delivers an entry with a receiver seq (epoch, k). A device of that user with (epoch, n), n >= k, must have the
//! entry. All devices of a user record which entries were counted by which seq, so the claim of each is checked against the
//! deliveries to all. This check is exact: it compares no times.
//!
//! It cannot find a receiver seq that was never incremented, because then no delivery counts the missing entry. But the
//! server increments the seq of all receivers before it delivers the entry to any of them; this includes new members,
//! because a membership change has its place in the log. So a device that asks after the first delivery, and hears that
//! it is up to date, must have the entry.

use super::{
    evidence::{Evidence, Membership},
    verdict::{Verdict, Violation},
};
use crate::ledger::{Conversation, DeviceId, Millis, Observation, User};
use std::collections::HashMap;

/// Per conversation, pairs of a receiver seq and the highest `conversation_seq` that it counts, both ascending.
type Counted = HashMap<Conversation, Vec<(u64, u64)>>;

/// Per conversation, pairs of a time and the highest `conversation_seq` delivered to any device by then, both ascending.
type Delivered = HashMap<Conversation, Vec<(Millis, u64)>>;

/// The highest shown `conversation_seq` per conversation.
type Positions = HashMap<Conversation, u64>;

/// P4, P5: if the server states that a device has everything, the device has everything.
pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let counted = counted(evidence);
    let delivered = delivered(evidence);
    let memberships = current_memberships(evidence);
    for (number, device) in evidence.ledger.devices.iter().enumerate() {
        let number = number as DeviceId;
        for incarnation in &device.incarnations {
            let mut positions: Positions = incarnation
                .positions
                .iter()
                .map(|(conversation, seq)| (*conversation, u64::from(*seq)))
                .collect();
            for observation in &incarnation.observations {
                match *observation {
                    Observation::Entry(receipt) => {
                        let position = positions.entry(receipt.conversation).or_insert(0);
                        *position = u64::from(receipt.conversation_seq).max(*position);
                    }
                    Observation::Complete { epoch, seq, at } => {
                        let Some(counted) = counted.get(&(device.user, epoch)) else { continue };
                        let claim = format_args!("({epoch}, {seq}) at {at} ms").to_string();
                        check_complete(evidence, number, &claim, seq, counted, &positions, verdict);
                    }
                    Observation::UpToDate { asked } => {
                        let memberships = memberships.get(&device.user).map_or(&[][..], Vec::as_slice);
                        let claim = (number, asked, memberships);
                        check_up_to_date(evidence, claim, &delivered, &positions, verdict);
                    }
                    Observation::Delivered { .. }
                    | Observation::Head { .. }
                    | Observation::ReadPosition { .. }
                    | Observation::Signal { .. }
                    | Observation::ReadPositionRegressed { .. }
                    | Observation::Unreadable { .. } => {}
                }
            }
        }
    }
}

fn check_complete(
    evidence: &Evidence<'_>,
    device: DeviceId,
    claim: &str,
    seq: u64,
    counted: &Counted,
    positions: &Positions,
    verdict: &mut Verdict,
) {
    let user = evidence.ledger.devices[device as usize].user;
    for (&conversation, counted) in counted {
        let Some(at) = counted.partition_point(|(count, _)| *count <= seq).checked_sub(1) else { continue };
        let needed = counted[at].1;
        let has = positions.get(&conversation).copied().unwrap_or(0);
        // A user who was removed in between could not fetch the missing entries.
        let visible = evidence
            .current_membership(conversation, user)
            .is_some_and(|membership| membership.joined <= needed);
        if has < needed && visible {
            verdict.report(Violation::FalseClaim, || {
                format!(
                    "{} claims to be complete up to {claim}, which counts {needed} of {}, but has only {has}",
                    evidence.device(device),
                    evidence.id(conversation)
                )
            });
        }
    }
}

fn counted(evidence: &Evidence<'_>) -> HashMap<(User, u32), Counted> {
    let mut all: HashMap<(User, u32), Counted> = HashMap::new();
    for device in &evidence.ledger.devices {
        for observation in device.incarnations.iter().flat_map(|incarnation| &incarnation.observations) {
            if let Observation::Delivered { conversation, conversation_seq, epoch, seq, .. } = *observation {
                let counted = all.entry((device.user, epoch)).or_default();
                counted.entry(conversation).or_default().push((seq, u64::from(conversation_seq)));
            }
        }
    }
    for counted in all.values_mut().flat_map(HashMap::values_mut) {
        counted.sort_unstable();
        let mut highest = 0;
        for (_, conversation_seq) in &mut *counted {
            highest = highest.max(*conversation_seq);
            *conversation_seq = highest;
        }
    }
    all
}

fn delivered(evidence: &Evidence<'_>) -> Delivered {
    let mut all = Delivered::new();
    let incarnations = evidence.ledger.devices.iter().flat_map(|device| &device.incarnations);
    for observation in incarnations.flat_map(|incarnation| &incarnation.observations) {
        if let Observation::Delivered { conversation, conversation_seq, at, .. } = *observation {
            all.entry(conversation).or_default().push((at, u64::from(conversation_seq)));
        }
    }
    for delivered in all.values_mut() {
        delivered.sort_unstable();
        let mut highest = 0;
        delivered.retain(|(_, conversation_seq)| {
            let rises = *conversation_seq > highest;
            highest = highest.max(*conversation_seq);
            rises
        });
    }
    all
}

/// The conversations of each user at the end of the run.
fn current_memberships(evidence: &Evidence<'_>) -> HashMap<User, Vec<(Conversation, Membership)>> {
    let mut all: HashMap<User, Vec<_>> = HashMap::new();
    for user in 0..evidence.ledger.users.len() as User {
        let conversations = 0..evidence.ledger.conversations.len() as Conversation;
        let memberships =
            conversations.filter_map(|number| Some((number, evidence.current_membership(number, user)?)));
        all.insert(user, memberships.collect());
    }
    all
}

fn check_up_to_date(
    evidence: &Evidence<'_>,
    (device, asked, memberships): (DeviceId, Millis, &[(Conversation, Membership)]),
    delivered: &Delivered,
    positions: &Positions,
    verdict: &mut Verdict,
) {
    for &(conversation, membership) in memberships {
        let Some(delivered) = delivered.get(&conversation) else { continue };
        let before = delivered.partition_point(|(at, _)| *at < asked);
        let needed = before.checked_sub(1).map_or(0, |last| delivered[last].1);
        let has = positions.get(&conversation).copied().unwrap_or(0);
        if has < needed && membership.joined <= needed {
            verdict.report(Violation::FalseClaim, || {
                format!(
                    "{} was called up to date at {asked} ms; {needed} of {} had been delivered, but it has only {has}",
                    evidence.device(device),
                    evidence.id(conversation)
                )
            });
        }
    }
}
