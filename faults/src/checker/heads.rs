//! Checks the heads that users read at the end of the run: the last entry, the unread count, the read position and the settings.

use super::{
    evidence::Evidence,
    verdict::{Verdict, Violation},
};
use crate::{
    ledger::{Conversation, FinalHead, Observation, Settings, User},
    store::Stored,
};
use std::collections::{HashMap, HashSet};

/// All checks of this module.
pub(super) fn check(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let marked = marked(evidence);
    let mut listed = HashSet::new();
    for head in &evidence.ledger.heads {
        listed.insert((head.conversation, head.user));
        let read = marked.get(&(head.conversation, head.user)).copied().unwrap_or(0);
        if let Err((violation, problem)) = check_head(evidence, head, read) {
            let (user, id) = (evidence.user(head.user), evidence.id(head.conversation));
            verdict.report(violation, || format!("{user} reads the head {head:?} of {id}, but {problem}"));
        }
    }
    if !evidence.ledger.heads.is_empty() {
        check_missing(evidence, &listed, verdict);
    }
}

/// The highest answered read position of each user, over all devices.
fn marked(evidence: &Evidence<'_>) -> HashMap<(Conversation, User), u32> {
    let mut marked = HashMap::new();
    for device in &evidence.ledger.devices {
        for observation in device.incarnations.iter().flat_map(|incarnation| &incarnation.observations) {
            if let Observation::ReadPosition { conversation, read } = *observation {
                let highest = marked.entry((conversation, device.user)).or_insert(0);
                *highest = read.max(*highest);
            }
        }
    }
    marked
}

/// P1: acknowledged entries are in the head. P5: it counts the entries that the user can see. P8: only members and former ones have it.
fn check_head(evidence: &Evidence<'_>, head: &FinalHead, marked: u32) -> Result<(), (Violation, String)> {
    let FinalHead { user, conversation, .. } = *head;
    let visible: Vec<&Stored> = visible(evidence, conversation, user).collect();
    let Some(last) = visible.last() else {
        return Err((Violation::Unauthorised, "the user was never a member".into()));
    };
    if u64::from(head.conversation_seq) != last.conversation_seq {
        let last = last.conversation_seq;
        return Err((Violation::Incomplete, format!("the last entry that the user can see is {last}")));
    }
    if head.read_seq < marked {
        return Err((Violation::Mismatch, format!("the user has read up to {marked}")));
    }
    let counts = |entry: &&&Stored| {
        entry.countable
            && entry.conversation_seq > head.read_seq.into()
            && entry.sender != evidence.user(user)
            && !evidence
                .versions(conversation, entry.conversation_seq)
                .last()
                .is_some_and(|version| version.is_recalled())
    };
    let unread = visible.iter().filter(counts).count();
    if u64::from(head.unread) != unread as u64 {
        return Err((Violation::Mismatch, format!("{unread} are unread")));
    }
    check_settings(evidence, head)
}

/// P1: the settings are those of the last confirmed change, or of one whose outcome is unknown.
fn check_settings(evidence: &Evidence<'_>, head: &FinalHead) -> Result<(), (Violation, String)> {
    let changes = (0..).zip(&evidence.ledger.settings);
    let own =
        changes.filter(|(_, change)| (change.user, change.conversation) == (head.user, head.conversation));
    let own: Vec<_> = own.collect();
    let confirmed = own.iter().rfind(|(_, change)| change.answered.is_some()).map(|(number, _)| *number);
    let mut possible = vec![confirmed.map_or_else(Settings::default, Settings::of)];
    let unknown = own.iter().filter(|(_, change)| change.answered.is_none());
    possible.extend(unknown.map(|(number, _)| Settings::of(*number)));
    if possible.contains(&head.settings) {
        return Ok(());
    }
    Err((Violation::Mismatch, format!("the last confirmed settings are {:?}", possible[0])))
}

/// P5: every user has a head of each conversation in which there is something to see.
fn check_missing(evidence: &Evidence<'_>, listed: &HashSet<(Conversation, User)>, verdict: &mut Verdict) {
    for conversation in 0..evidence.ledger.conversations.len() as Conversation {
        for user in 0..evidence.ledger.users.len() as User {
            if !listed.contains(&(conversation, user))
                && visible(evidence, conversation, user).next().is_some()
            {
                verdict.report(Violation::Incomplete, || {
                    format!("{} has no head of {}", evidence.user(user), evidence.id(conversation))
                });
            }
        }
    }
}

/// The entries that a user can see.
fn visible<'a>(
    evidence: &'a Evidence<'_>,
    conversation: Conversation,
    user: User,
) -> impl Iterator<Item = &'a Stored> {
    let entries = evidence.entries(conversation).iter();
    entries.filter(move |entry| evidence.membership_at(conversation, user, entry.conversation_seq).is_some())
}
