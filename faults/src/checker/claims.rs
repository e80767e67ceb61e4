//! The receiver's seq against what devices had.
//!
//! When an entry was delivered with a receiver's seq of (epoch, k), then whoever has (epoch, n) with n at least k has
//! that entry. Each device of a user tells which entries were counted up to which number, so that what any of them
//! believes to have can be held against it. That is exact: no time is compared.
//!
//! A number that was never raised for somebody can't be found so, because nothing counts then what they lack. But all
//! who receive an entry are counted before anybody is delivered it, newcomers too, because a change of a group has its place
//! in the log. So when somebody asks after that, and hears that there
//! is no news, they have it.

use super::{
    Kind, Verdict,
    case::{Case, Stay},
};
use crate::ledger::{Conversation, DeviceId, Millis, Seen, User};
use std::collections::HashMap;

/// Per conversation, pairs of a receiver's seq and the highest `conversation_seq` that it counts, both rising.
type Counted = HashMap<Conversation, Vec<(u64, u64)>>;

/// P4, P5: a device that was told that it has everything has it.
pub(super) fn check(case: &Case<'_>, verdict: &mut Verdict) {
    let counted = counted(case);
    let delivered = delivered(case);
    let members = members(case);
    for (number, device) in case.ledger.devices.iter().enumerate() {
        let number = number as DeviceId;
        for life in &device.lives {
            let mut positions: HashMap<Conversation, u64> =
                life.positions.iter().map(|(conversation, seq)| (*conversation, u64::from(*seq))).collect();
            for seen in &life.seen {
                match *seen {
                    Seen::Entry(receipt) => {
                        let position = positions.entry(receipt.conversation).or_insert(0);
                        *position = u64::from(receipt.conversation_seq).max(*position);
                    }
                    Seen::Complete { epoch, seq, at } => {
                        let Some(counted) = counted.get(&(device.user, epoch)) else { continue };
                        let claim = format_args!("({epoch}, {seq}) at {at} ms").to_string();
                        claimed(case, number, &claim, seq, counted, &positions, verdict);
                    }
                    Seen::UpToDate { asked } => {
                        let stays = members.get(&device.user).map_or(&[][..], Vec::as_slice);
                        no_news(case, number, asked, stays, &delivered, &positions, verdict);
                    }
                    Seen::Counted { .. }
                    | Seen::Head { .. }
                    | Seen::Unread { .. }
                    | Seen::Unreadable { .. } => {}
                }
            }
        }
    }
}

fn claimed(
    case: &Case<'_>,
    device: DeviceId,
    claim: &str,
    seq: u64,
    counted: &Counted,
    positions: &HashMap<Conversation, u64>,
    verdict: &mut Verdict,
) {
    let user = case.ledger.devices[device as usize].user;
    for (&conversation, counted) in counted {
        let Some(at) = counted.partition_point(|(count, _)| *count <= seq).checked_sub(1) else { continue };
        let needed = counted[at].1;
        let has = positions.get(&conversation).copied().unwrap_or(0);
        // Who was removed meanwhile could not fetch what they lacked.
        let visible = case.open_stay(conversation, user).is_some_and(|stay| stay.joined <= needed);
        if has < needed && visible {
            verdict.find(Kind::Lied, || {
                format!(
                    "{} has everything up to {claim}, which counts {needed} of {}, and has only {has}",
                    case.device(device),
                    case.id(conversation)
                )
            });
        }
    }
}

fn counted(case: &Case<'_>) -> HashMap<(User, u32), Counted> {
    let mut all: HashMap<(User, u32), Counted> = HashMap::new();
    for device in &case.ledger.devices {
        for seen in device.lives.iter().flat_map(|life| &life.seen) {
            if let Seen::Counted { conversation, conversation_seq, epoch, seq, .. } = *seen {
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

/// Per conversation, when somebody was first delivered an entry, and the highest `conversation_seq` by then.
type Delivered = HashMap<Conversation, Vec<(Millis, u64)>>;

fn delivered(case: &Case<'_>) -> Delivered {
    let mut all = Delivered::new();
    let lives = case.ledger.devices.iter().flat_map(|device| &device.lives);
    for seen in lives.flat_map(|life| &life.seen) {
        if let Seen::Counted { conversation, conversation_seq, at, .. } = *seen {
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

/// Conversations that a user is in at the end.
fn members(case: &Case<'_>) -> HashMap<User, Vec<(Conversation, Stay)>> {
    let mut members: HashMap<User, Vec<_>> = HashMap::new();
    for user in 0..case.ledger.users.len() as User {
        let conversations = 0..case.ledger.conversations.len() as Conversation;
        let stays = conversations.filter_map(|number| Some((number, case.open_stay(number, user)?)));
        members.insert(user, stays.collect());
    }
    members
}

fn no_news(
    case: &Case<'_>,
    device: DeviceId,
    asked: Millis,
    stays: &[(Conversation, Stay)],
    delivered: &Delivered,
    positions: &HashMap<Conversation, u64>,
    verdict: &mut Verdict,
) {
    for &(conversation, stay) in stays {
        let Some(delivered) = delivered.get(&conversation) else { continue };
        let before = delivered.partition_point(|(at, _)| *at < asked);
        let needed = before.checked_sub(1).map_or(0, |last| delivered[last].1);
        let has = positions.get(&conversation).copied().unwrap_or(0);
        if has < needed && stay.joined <= needed {
            verdict.find(Kind::Lied, || {
                format!(
                    "{} asked at {asked} ms and heard of no news, when {needed} of {} had been delivered, and has only {has}",
                    case.device(device),
                    case.id(conversation)
                )
            });
        }
    }
}
