//! Checks sends and read histories against the store.

use super::{
    edits,
    evidence::Evidence,
    verdict::{Verdict, Violation},
    versions,
};
use crate::{
    ledger::{Conversation, DeviceId, Id, Millis, NOT_TAKEN, Outcome, Send},
    store::{Content, Stored},
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// All checks of this module.
pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    check_numbering(evidence, verdict);
    check_origins(evidence, verdict);
    check_sends(evidence, verdict);
    check_device_order(evidence, verdict);
    check_user_order(evidence, verdict);
    check_histories(evidence, verdict);
}

/// P4: the `conversation_seq` of every conversation are 1, 2, 3, ... P2: each message is stored once.
fn check_numbering(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for (id, conversation) in &evidence.store.conversations {
        let (mut expected, mut seen) = (1, HashMap::new());
        for entry in &conversation.entries {
            let seq = entry.conversation_seq;
            if seq != expected {
                verdict.report(Violation::Gap, || format!("{id} has {expected} missing before {seq}"));
            }
            expected = seq + 1;
            let Stored { sender, device, client_msg_id, .. } = entry;
            if let Some(first) = seen.insert((sender, device, client_msg_id), seq) {
                verdict.report(Violation::Duplicated, || {
                    format!("{client_msg_id} of {sender}/{device} is stored in {id} as {first} and as {seq}")
                });
            }
        }
        if conversation.head != expected - 1 {
            let head = conversation.head;
            verdict.report(Violation::Gap, || {
                format!("{id} has the head {head}, but ends with {}", expected - 1)
            });
        }
    }
}

/// P1: every stored entry can be decoded and was sent to this conversation by the workload.
fn check_origins(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let known: HashSet<&str> = evidence.ledger.conversations.iter().map(String::as_str).collect();
    let sends = evidence.ledger.sends.iter();
    let sent: HashSet<_> =
        sends.map(|send| (evidence.id(send.conversation), send.device, send.client_msg_id)).collect();
    let changes = evidence.ledger.changes.iter();
    let change_ids: HashSet<_> =
        changes.map(|change| (evidence.id(change.conversation), change.message_id)).collect();
    for (id, conversation) in &evidence.store.conversations {
        if !known.contains(id.as_str()) {
            verdict
                .report(Violation::Mismatch, || format!("{id} is stored, but the workload does not use it"));
        }
        for entry in &conversation.entries {
            let has_origin = match &entry.content {
                Content::Message { .. } | Content::Edit | Content::Recall | Content::Reaction(_) => {
                    let sender = evidence.device_of(entry).zip(Id::parse(&entry.client_msg_id));
                    sender.is_some_and(|(device, own)| sent.contains(&(id.as_str(), device, own)))
                }
                // The ledger does not list the creation of groups. A run whose groups can't be created fails at once.
                Content::Created { .. } => entry.conversation_seq == 1,
                Content::Added(_) | Content::Removed(_) | Content::Left => {
                    change_ids.contains(&(id.as_str(), entry.message_id))
                }
                Content::Undecodable => false,
            };
            if !has_origin {
                verdict.report(Violation::Mismatch, || {
                    format!("{id} holds an entry that was not sent there: {entry:?}")
                });
            }
        }
    }
}

/// P1: every acknowledged message is stored with its content. P2: it has one id. P8: no refused message is stored.
fn check_sends(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for send in &evidence.ledger.sends {
        let found = evidence.stored(send);
        match &send.outcome {
            Outcome::Acked { message_id, .. } => match found {
                None => verdict.report(Violation::Lost, || {
                    format!("{} was acknowledged, but is not stored", evidence.send(send))
                }),
                Some(entry) if entry.message_id != *message_id => {
                    verdict.report(Violation::Duplicated, || {
                        format!(
                            "{} was acknowledged as {message_id}, but is stored as {}",
                            evidence.send(send),
                            entry.message_id
                        )
                    })
                }
                Some(_) => {}
            },
            Outcome::Refused { code, first_attempt: true, .. } if code != NOT_TAKEN && found.is_some() => {
                verdict.report(Violation::Unauthorised, || {
                    format!("{} was refused ({code}), but is stored", evidence.send(send))
                });
            }
            _ => {}
        }
        if let Some(entry) = found
            && !has_content_of(entry, send)
        {
            verdict.report(Violation::Mismatch, || {
                format!("{} is stored as {:?}", evidence.send(send), entry.content)
            });
        }
        if send.forbidden && (found.is_some() || matches!(send.outcome, Outcome::Acked { .. })) {
            verdict.report(Violation::Unauthorised, || {
                format!("{} was accepted, but its user must not send it", evidence.send(send))
            });
        }
        check_refusal(evidence, send, verdict);
    }
    for later in &evidence.ledger.later_acks {
        let send = &evidence.ledger.sends[later.send as usize];
        if !matches!(send.outcome, Outcome::Acked { message_id, .. } if message_id == later.message_id) {
            verdict.report(Violation::Duplicated, || {
                format!(
                    "{}: {:?}, but a retry was acknowledged as {}",
                    evidence.send(send),
                    send.outcome,
                    later.message_id
                )
            });
        }
    }
}

fn has_content_of(entry: &Stored, send: &Send) -> bool {
    let is_right_kind = match send.target {
        None => matches!(entry.content, Content::Message { .. }),
        Some(target) => versions::is_change(entry) && entry.refers_to == Some(target),
    };
    entry.digest == send.digest && is_right_kind
}

/// P9: a member's message is not refused permanently.
fn check_refusal(evidence: &Evidence<'_>, send: &Send, verdict: &mut Verdict) {
    let Outcome::Refused { code, .. } = &send.outcome else { return };
    if code == NOT_TAKEN {
        return;
    }
    let memberships = evidence.memberships(send.conversation, evidence.sender(send));
    let always = memberships.len() == 1 && memberships[0].left.is_none();
    let is_valid = match (code.as_str(), send.target) {
        ("forbidden", _) => !always || send.forbidden || memberships[0].visible_from > 1,
        // Another change was stored before.
        ("conflict", Some(target)) => is_recalled(evidence, send.conversation, target),
        ("not_found", Some(_)) => !always,
        _ => false,
    };
    if !is_valid {
        verdict
            .report(Violation::Stuck, || format!("{} was refused permanently: {code}", evidence.send(send)));
    }
}

fn is_recalled(evidence: &Evidence<'_>, conversation: Conversation, target: Id) -> bool {
    let seq = evidence.seq_of(conversation, target).unwrap_or_default();
    evidence.versions(conversation, seq).last().is_some_and(|version| version.is_recalled())
}

/// P3: the messages of one device are stored in the order in which it sent them.
fn check_device_order(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut last: HashMap<(DeviceId, Conversation), (u64, &Send)> = HashMap::new();
    for (seq, _, send) in acked(evidence).filter(|(.., send)| send.ordered) {
        let last = last.entry((send.device, send.conversation)).or_insert((seq, send));
        if seq < last.0 {
            verdict.report(Violation::OutOfOrder, || {
                let (before, send) = (evidence.send(last.1), evidence.send(send));
                format!("{send} is stored as {seq}, but {before}, sent before it, as {}", last.0)
            });
        } else {
            *last = (seq, send);
        }
    }
}

/// P3: a message that a user sent from any device after the acknowledgement of another one is stored after it.
fn check_user_order(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut by_user: HashMap<_, BTreeMap<u64, (Millis, &Send)>> = HashMap::new();
    for (seq, at, send) in acked(evidence) {
        by_user.entry((evidence.sender(send), send.conversation)).or_default().insert(seq, (at, send));
    }
    for sends in by_user.values() {
        // The send that began last, among the messages with a lower conversation_seq.
        let mut latest: Option<(u64, &Send)> = None;
        for (&seq, &(at, send)) in sends {
            if let Some((before, other)) = latest.filter(|(_, other)| at < other.began) {
                verdict.report(Violation::OutOfOrder, || {
                    let (send, other) = (evidence.send(send), evidence.send(other));
                    format!("{send}, acknowledged at {at} ms, is stored as {seq}, after {other}, stored as {before}")
                });
            }
            if latest.is_none_or(|(_, latest)| send.began > latest.began) {
                latest = Some((seq, send));
            }
        }
    }
}

/// The stored acknowledged sends in the order in which they began, each with `conversation_seq` and time of the
/// acknowledgement.
pub(super) fn acked<'a>(evidence: &'a Evidence<'_>) -> impl Iterator<Item = (u64, Millis, &'a Send)> {
    evidence.ledger.sends.iter().filter_map(|send| match send.outcome {
        Outcome::Acked { message_id, at } => {
            Some((evidence.seq_of(send.conversation, message_id)?, at, send))
        }
        _ => None,
    })
}

/// P4, P5: a history is equal to the stored entries. P8: it contains only entries that the user may see.
fn check_histories(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    for history in &evidence.ledger.histories {
        let memberships = evidence.memberships(history.conversation, history.user);
        if memberships.is_empty() && !history.entries.is_empty() {
            verdict.report(Violation::Unauthorised, || {
                let (user, id) = (evidence.user(history.user), evidence.id(history.conversation));
                format!("{user} was never in {id}, but reads {:?} and further entries", history.entries[0])
            });
            continue;
        }
        let visible = |entry: &&Stored| {
            evidence.membership_at(history.conversation, history.user, entry.conversation_seq).is_some()
        };
        let mut stored = evidence.entries(history.conversation).iter().filter(visible);
        let mut read = history.entries.iter();
        loop {
            let (stored, read) = (stored.next(), read.next());
            let same = match (stored, read) {
                (None, None) => break,
                (Some(stored), Some((seq, id, digest, state))) => {
                    let now = edits::last_version(evidence, history.conversation, stored, history.user);
                    stored.conversation_seq == u64::from(*seq)
                        && stored.message_id == *id
                        && now == (*digest, *state)
                }
                _ => false,
            };
            if !same {
                let is_hidden = |(seq, ..): &&(u32, Id, u64, u64)| {
                    evidence.membership_at(history.conversation, history.user, (*seq).into()).is_none()
                };
                let violation = match read.filter(is_hidden) {
                    Some(_) => Violation::Unauthorised,
                    None => Violation::Mismatch,
                };
                let stored = stored.map(|entry| {
                    let now = edits::last_version(evidence, history.conversation, entry, history.user);
                    (entry.conversation_seq, entry.message_id, now, &entry.content)
                });
                verdict.report(violation, || {
                    format!(
                        "{} reads {read:?} in the history of {}, but {stored:?} is stored",
                        evidence.user(history.user),
                        evidence.id(history.conversation)
                    )
                });
                break;
            }
        }
    }
}
