//! Sends and changes against the store.

use super::{Kind, Verdict, case::Case};
use crate::{
    ledger::{Change, Conversation, DeviceId, Id, Millis, Outcome, Send, User},
    store::{Content, Stored},
    workload::NOT_TAKEN,
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// P4: the numbers of every conversation are 1, 2, 3, ...; P2: each message is in it once.
pub(super) fn numbers(case: &Case<'_>, verdict: &mut Verdict) {
    for (id, conversation) in &case.store.conversations {
        let (mut expected, mut seen) = (1, HashMap::new());
        for entry in &conversation.entries {
            let seq = entry.conversation_seq;
            if seq != expected {
                verdict.find(Kind::Gap, || format!("{id} has {expected} missing before {seq}"));
            }
            expected = seq + 1;
            if let Some(first) = seen.insert((&entry.sender, &entry.client_msg_id), seq) {
                let Stored { sender, client_msg_id, .. } = entry;
                verdict.find(Kind::Duplicated, || {
                    format!("{client_msg_id} of {sender} is in {id} as {first} and as {seq}")
                });
            }
        }
        if conversation.head != expected - 1 {
            let head = conversation.head;
            verdict.find(Kind::Gap, || {
                format!("{id} says that its head is {head}, and ends with {}", expected - 1)
            });
        }
    }
}

/// P1: all that is stored was said by somebody, there, and was understood.
pub(super) fn origins(case: &Case<'_>, verdict: &mut Verdict) {
    let known: HashSet<&str> = case.ledger.conversations.iter().map(String::as_str).collect();
    let sends = case.ledger.sends.iter();
    let said: HashSet<_> = sends
        .map(|send| (case.id(send.conversation), case.user(case.sender(send)), send.client_msg_id))
        .collect();
    let changes = case.ledger.changes.iter();
    let changed: HashSet<_> =
        changes.map(|change| (case.id(change.conversation), change.message_id)).collect();
    for (id, conversation) in &case.store.conversations {
        if !known.contains(id.as_str()) {
            verdict.find(Kind::Untrue, || format!("{id} is stored, and nobody talks there"));
        }
        for entry in &conversation.entries {
            let has_origin = match &entry.content {
                Content::Message { .. } => Id::parse(&entry.client_msg_id)
                    .is_some_and(|own| said.contains(&(id.as_str(), entry.sender.as_str(), own))),
                // Groups are made before all else, and a run that could not does not begin.
                Content::Created { .. } => entry.conversation_seq == 1,
                Content::Added(_) | Content::Removed(_) | Content::Left => {
                    changed.contains(&(id.as_str(), entry.message_id))
                }
                Content::Nothing => false,
            };
            if !has_origin {
                verdict.find(Kind::Untrue, || format!("{id} holds what nobody said there: {entry:?}"));
            }
        }
    }
}

/// P1: what was acknowledged is stored, and says what it said. P2: under one id. P8: what was refused is not.
pub(super) fn sends(case: &Case<'_>, verdict: &mut Verdict) {
    for send in &case.ledger.sends {
        let found = case.stored(send);
        match &send.outcome {
            Outcome::Acked { message_id, .. } => match found {
                None => verdict
                    .find(Kind::Lost, || format!("{} was acknowledged and is not stored", case.send(send))),
                Some(entry) if entry.message_id != *message_id => verdict.find(Kind::Duplicated, || {
                    format!(
                        "{} was acknowledged as {message_id} and stored as {}",
                        case.send(send),
                        entry.message_id
                    )
                }),
                Some(_) => {}
            },
            Outcome::Refused { code, at_once: true, .. } if code != NOT_TAKEN && found.is_some() => {
                verdict.find(Kind::Unauthorised, || {
                    format!("{} was refused ({code}) and stored", case.send(send))
                });
            }
            _ => {}
        }
        if let Some(entry) = found
            && !says(entry, send)
        {
            verdict.find(Kind::Untrue, || format!("{} is stored as {:?}", case.send(send), entry.content));
        }
        if send.forbidden && (found.is_some() || matches!(send.outcome, Outcome::Acked { .. })) {
            verdict
                .find(Kind::Unauthorised, || format!("{} was taken from somebody outside", case.send(send)));
        }
        refusal(case, send, verdict);
    }
    for later in &case.ledger.later_acks {
        let send = &case.ledger.sends[later.send as usize];
        if !matches!(send.outcome, Outcome::Acked { message_id, .. } if message_id == later.message_id) {
            verdict.find(Kind::Duplicated, || {
                format!(
                    "{}: {:?}, and a retry was acknowledged as {}",
                    case.send(send),
                    send.outcome,
                    later.message_id
                )
            });
        }
    }
}

fn says(entry: &Stored, send: &Send) -> bool {
    entry.digest == send.digest && matches!(entry.content, Content::Message { .. })
}

/// P9: who may send is not refused for good.
fn refusal(case: &Case<'_>, send: &Send, verdict: &mut Verdict) {
    let Outcome::Refused { code, .. } = &send.outcome else { return };
    if code == NOT_TAKEN {
        return;
    }
    let stays = case.stays(send.conversation, case.sender(send));
    let always = stays.len() == 1 && stays[0].to.is_none();
    if code != "forbidden" || (always && !send.forbidden && stays[0].from == 1) {
        verdict.find(Kind::Stuck, || format!("{} was refused for good: {code}", case.send(send)));
    }
}

/// P3: a device's messages are in the order in which they were sent.
pub(super) fn order(case: &Case<'_>, verdict: &mut Verdict) {
    let mut last: HashMap<(DeviceId, Conversation), (u64, &Send)> = HashMap::new();
    for (seq, _, send) in acked(case).filter(|(.., send)| send.ordered) {
        let last = last.entry((send.device, send.conversation)).or_insert((seq, send));
        if seq < last.0 {
            verdict.find(Kind::OutOfOrder, || {
                let (before, send) = (case.send(last.1), case.send(send));
                format!("{send} is stored as {seq}, and {before}, sent before it, as {}", last.0)
            });
        } else {
            *last = (seq, send);
        }
    }
}

/// P3: what a user sent from whichever device after the acknowledgement of another message comes after that.
pub(super) fn order_of_users(case: &Case<'_>, verdict: &mut Verdict) {
    let mut by_user: HashMap<_, BTreeMap<u64, (Millis, &Send)>> = HashMap::new();
    for (seq, at, send) in acked(case) {
        by_user.entry((case.sender(send), send.conversation)).or_default().insert(seq, (at, send));
    }
    for sends in by_user.values() {
        // Of those that are stored before, the one that was begun last.
        let mut latest: Option<(u64, &Send)> = None;
        for (&seq, &(at, send)) in sends {
            if let Some((before, other)) = latest.filter(|(_, other)| at < other.began) {
                verdict.find(Kind::OutOfOrder, || {
                    let (send, other) = (case.send(send), case.send(other));
                    format!("{send}, acknowledged at {at} ms, is stored as {seq}, after {other}, which is {before}")
                });
            }
            if latest.is_none_or(|(_, latest)| send.began > latest.began) {
                latest = Some((seq, send));
            }
        }
    }
}

/// P3: a change of a group comes after what was acknowledged there before it was asked for.
pub(super) fn order_of_changes(case: &Case<'_>, verdict: &mut Verdict) {
    let mut by_group: HashMap<_, Vec<&Change>> = HashMap::new();
    for change in &case.ledger.changes {
        by_group.entry(change.conversation).or_default().push(change);
    }
    for (seq, at, send) in acked(case) {
        let changes = by_group.get(&send.conversation).map_or(&[][..], Vec::as_slice);
        let mut overtaking =
            changes.iter().filter(|change| at < change.began && seq > change.conversation_seq.into());
        if let Some(change) = overtaking.next() {
            verdict.find(Kind::OutOfOrder, || {
                let (send, user) = (case.send(send), case.user(change.user));
                format!("{send}, acknowledged at {at} ms, is stored as {seq}, after {change:?} of {user}")
            });
        }
    }
}

/// The acknowledged sends that are stored, in the order in which they were begun: number, time of the acknowledgement.
fn acked<'a>(case: &'a Case<'_>) -> impl Iterator<Item = (u64, Millis, &'a Send)> {
    case.ledger.sends.iter().filter_map(|send| match send.outcome {
        Outcome::Acked { message_id, at } => Some((case.place(send.conversation, message_id)?, at, send)),
        _ => None,
    })
}

/// P1: an answered change of a group is stored as answered. P8: who was removed sends no more. P9: who is in is not refused.
pub(super) fn changes(case: &Case<'_>, verdict: &mut Verdict) {
    let mut by_member: HashMap<(Conversation, User), Vec<&Change>> = HashMap::new();
    for change in &case.ledger.changes {
        let stored = case.place(change.conversation, change.message_id);
        if stored != Some(u64::from(change.conversation_seq)) {
            let what = if change.joined { "joined" } else { "was removed" };
            let kind = if stored.is_none() { Kind::Lost } else { Kind::Untrue };
            verdict.find(kind, || {
                format!(
                    "{} {what}, answered as {} of {}, and stored as {stored:?}",
                    case.user(change.user),
                    change.conversation_seq,
                    case.id(change.conversation)
                )
            });
        }
        if let Some(entry) = case.at(change.conversation, change.conversation_seq.into())
            && stored == Some(entry.conversation_seq)
            && !does(case, entry, change)
        {
            verdict.find(Kind::Untrue, || {
                let (user, id) = (case.user(change.user), case.id(change.conversation));
                format!("the answered {change:?} of {user} in {id} is stored as {:?}", entry.content)
            });
        }
        by_member.entry((change.conversation, change.user)).or_default().push(change);
    }
    for send in &case.ledger.sends {
        if let Some(changes) = by_member.get(&(send.conversation, case.sender(send))) {
            membership(case, send, changes, verdict);
        }
    }
}

/// A send of somebody who was removed or added in the run.
fn membership(case: &Case<'_>, send: &Send, changes: &[&Change], verdict: &mut Verdict) {
    let user = case.sender(send);
    // Changes are one after the other, so the last one before the send says where the user was.
    let (before, after) = changes.split_at(changes.partition_point(|change| change.at < send.began));
    // An attempt may be on its way for long, and arrive when the next change has been made.
    let in_time = |at| after.first().is_none_or(|change| at < change.began);
    let was_in = before.last().map_or(case.is_member(send.conversation, user, 1), |change| change.joined);
    if was_in {
        if let Outcome::Refused { code, at, .. } = &send.outcome
            && code == "forbidden"
            && in_time(*at)
        {
            verdict.find(Kind::Stuck, || format!("{} was refused for good to a member", case.send(send)));
        }
        return;
    }
    let taken = matches!(send.outcome, Outcome::Acked { at, .. } if in_time(at));
    // Whatever the user was told: what was sent after the removal is stored when the user is in again, or not at all. Or behind
    // the next removal, which may have been on its way when an attempt was taken.
    let stored = case.stored(send).map(|entry| entry.conversation_seq);
    let is_out = |seq| {
        let known = changes.iter().rfind(|change| u64::from(change.conversation_seq) < seq);
        !case.is_member(send.conversation, user, seq)
            && known.is_none_or(|change| !change.joined && change.at < send.began)
    };
    if taken || stored.is_some_and(is_out) {
        verdict.find(Kind::Unauthorised, || {
            let removed = before.last().map_or(0, |change| change.at);
            format!(
                "{} was taken from a member who had been removed at {removed} ms, and is stored as {stored:?}",
                case.send(send)
            )
        });
    }
}

/// Whether an entry is the change of this one user.
fn does(case: &Case<'_>, entry: &Stored, change: &Change) -> bool {
    let user = case.user(change.user);
    match &entry.content {
        Content::Added(users) => change.joined && *users == [user],
        Content::Removed(users) => !change.joined && *users == [user],
        Content::Left => !change.joined && entry.sender == user,
        _ => false,
    }
}

/// P4, P5: history shows what is stored. P8: to who may see it.
pub(super) fn histories(case: &Case<'_>, verdict: &mut Verdict) {
    for history in &case.ledger.histories {
        let stay = case.open_stay(history.conversation, history.user);
        if stay.is_none() && !history.entries.is_empty() {
            verdict.find(Kind::Unauthorised, || {
                let (user, id) = (case.user(history.user), case.id(history.conversation));
                format!("{user} is not in {id}, and reads {:?} and so on in it", history.entries[0])
            });
            continue;
        }
        let visible = |entry: &&Stored| stay.is_some_and(|stay| stay.from <= entry.conversation_seq);
        let mut stored = case.entries(history.conversation).iter().filter(visible);
        let mut read = history.entries.iter();
        loop {
            let (stored, read) = (stored.next(), read.next());
            let same = match (stored, read) {
                (None, None) => break,
                (Some(stored), Some((seq, id, digest))) => {
                    stored.conversation_seq == u64::from(*seq)
                        && stored.message_id == *id
                        && stored.digest == *digest
                }
                _ => false,
            };
            if !same {
                let stored = stored.map(|entry| (entry.conversation_seq, entry.message_id, entry.digest));
                verdict.find(Kind::Untrue, || {
                    format!(
                        "{} reads {read:?} in the history of {}, where {stored:?} is stored",
                        case.user(history.user),
                        case.id(history.conversation)
                    )
                });
                break;
            }
        }
    }
}
