//! What devices were shown against the store.

use super::{Kind, Verdict, case::Case};
use crate::ledger::{Conversation, DeviceId, Life, Receipt, Seen};
use std::collections::HashMap;

/// How far a life has come in a conversation.
#[derive(Default)]
struct Course {
    /// Where the kept state was.
    began: u64,
    /// The highest number that was shown, or where it began.
    last: u64,
    shown: Vec<u64>,
}

/// Every life of every device was shown the right entries, each once, in order, and without holes; and the last life all
/// of them.
pub(super) fn receipts(case: &Case<'_>, verdict: &mut Verdict) {
    for (number, device) in case.ledger.devices.iter().enumerate() {
        let number = number as DeviceId;
        let mut reached = HashMap::new();
        for (life_number, life) in device.lives.iter().enumerate() {
            began(case, number, life, &reached, verdict);
            let courses = follow(case, number, life, verdict);
            for (conversation, course) in &courses {
                let reached: &mut u64 = reached.entry(*conversation).or_default();
                *reached = course.last.max(*reached);
            }
            if life_number + 1 == device.lives.len() {
                end(case, number, &courses, verdict);
            }
        }
    }
}

/// A kept state has nothing that was not shown: what it runs ahead of is never asked for again.
fn began(
    case: &Case<'_>,
    device: DeviceId,
    life: &Life,
    reached: &HashMap<Conversation, u64>,
    verdict: &mut Verdict,
) {
    let user = case.ledger.devices[device as usize].user;
    for &(conversation, position) in &life.positions {
        let position = u64::from(position);
        // A position may also be the number before the first that the user sees.
        let Some(stay) = case.open_stay(conversation, user) else { continue };
        let expected = stay.from.max(reached.get(&conversation).copied().unwrap_or(0) + 1);
        if expected <= position {
            verdict.find(Kind::Incomplete, || {
                format!(
                    "{} began at {} ms as if it had been shown {expected} to {position} of {}",
                    case.device(device),
                    life.began,
                    case.id(conversation)
                )
            });
            lost(case, device, conversation, expected..position + 1, verdict);
        }
    }
}

fn follow(
    case: &Case<'_>,
    device: DeviceId,
    life: &Life,
    verdict: &mut Verdict,
) -> HashMap<Conversation, Course> {
    let begin = |(conversation, position): &(Conversation, u32)| {
        let at = u64::from(*position);
        (*conversation, Course { began: at, last: at, shown: Vec::new() })
    };
    let mut courses: HashMap<_, _> = life.positions.iter().map(begin).collect();
    for seen in &life.seen {
        if let Seen::Entry(receipt) = seen {
            let course = courses.entry(receipt.conversation).or_default();
            shown(case, device, receipt, course, verdict);
        }
    }
    courses
}

fn shown(case: &Case<'_>, device: DeviceId, receipt: &Receipt, course: &mut Course, verdict: &mut Verdict) {
    let Receipt { conversation, message_id, digest, at, .. } = *receipt;
    let seq = u64::from(receipt.conversation_seq);
    let user = case.ledger.devices[device as usize].user;
    let what = || format!("{} was shown {seq} of {} at {at} ms", case.device(device), case.id(conversation));
    match case.at(conversation, seq) {
        Some(stored) if stored.message_id == message_id && stored.digest == digest => {}
        Some(stored) if stored.message_id == message_id => {
            verdict.find(Kind::Untrue, || format!("{}, and it says something else than is stored", what()));
        }
        Some(stored) => {
            let other = stored.message_id;
            verdict.find(Kind::Untrue, || format!("{} as {message_id}, which is stored as {other}", what()));
        }
        None => verdict.find(Kind::Untrue, || format!("{}, and nothing is stored there", what())),
    }
    let stay = case.stay(conversation, user, seq);
    if stay.is_none() {
        verdict.find(Kind::Unauthorised, || format!("{}, and may not see it", what()));
    }
    if seq <= course.last {
        if seq <= course.began || course.shown.contains(&seq) {
            verdict.find(Kind::Duplicated, || format!("{}, and had it", what()));
        } else {
            verdict.find(Kind::OutOfOrder, || format!("{}, after {}", what(), course.last));
        }
        return;
    }
    let expected = stay.map_or(seq, |stay| stay.from.max(course.last + 1));
    // A number that nobody has is a gap of the store.
    if (expected..seq).any(|missing| case.at(conversation, missing).is_some()) {
        verdict.find(Kind::Incomplete, || format!("{} without {expected} to {}", what(), seq - 1));
        lost(case, device, conversation, expected..seq, verdict);
    }
    course.last = seq;
    course.shown.push(seq);
}

/// What is missing at the end of the run.
fn end(case: &Case<'_>, device: DeviceId, courses: &HashMap<Conversation, Course>, verdict: &mut Verdict) {
    let user = case.ledger.devices[device as usize].user;
    for conversation in 0..case.ledger.conversations.len() as Conversation {
        let Some(stay) = case.open_stay(conversation, user) else { continue };
        let (last, head) =
            (courses.get(&conversation).map_or(0, |course| course.last), case.head(conversation));
        let expected = stay.from.max(last + 1);
        if expected <= head {
            verdict.find(Kind::Incomplete, || {
                format!(
                    "{} lacks {expected} to {head} of {} at the end",
                    case.device(device),
                    case.id(conversation)
                )
            });
            lost(case, device, conversation, expected..head + 1, verdict);
        }
    }
}

/// P1: of what a device was not shown, the acknowledged messages are lost to it.
fn lost(
    case: &Case<'_>,
    device: DeviceId,
    conversation: Conversation,
    missing: std::ops::Range<u64>,
    verdict: &mut Verdict,
) {
    for entry in missing.filter_map(|seq| case.at(conversation, seq)) {
        if case.is_acked(conversation, entry.message_id) {
            verdict.find(Kind::Lost, || {
                format!(
                    "{} of {} was acknowledged, and never shown to {}",
                    entry.conversation_seq,
                    case.id(conversation),
                    case.device(device)
                )
            });
        }
    }
}
