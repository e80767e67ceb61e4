//! Applies a change of an entry to a copy of that entry.

use abi::{
    envelope,
    v1::{Entry, EntryState, ReactionCount},
};

/// The result of [`apply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The copy is now as after the change.
    Changed,
    /// The copy already has this change, or the entry is no change of it.
    Unchanged,
    /// The change says too little. Read the entry again, with `history` from `refers_to_seq` on.
    Incomplete,
}

/// Applies an edit, a recall or a reaction to a copy of the entry that it refers to. `me`: the user who sees the copy.
pub fn apply(change: &Entry, target: &mut Entry, me: &str) -> Applied {
    let is_for_target = change.conversation == target.conversation && change.refers_to == target.message_id;
    if !is_for_target || !envelope::is_change_of_entry(&change.kind) {
        return Applied::Unchanged;
    }
    let old = target.state.take().unwrap_or_default();
    let Some(new) = &change.target_state else {
        // History has the changes without the state after each of them; it is part of the changed entry.
        let is_known = change.conversation_seq <= old.changed_seq;
        target.state = Some(old).filter(|old| old.changed_seq > 0);
        return if is_known { Applied::Unchanged } else { Applied::Incomplete };
    };
    if new.changed_seq <= old.changed_seq {
        target.state = Some(old);
        return Applied::Unchanged;
    }
    let state = EntryState { reactions: with_mine(new, &old, change, me), ..new.clone() };
    let is_edit = change.kind == envelope::EDIT;
    let has_content = new.edits == old.edits + u32::from(is_edit) && (change.content.is_some() || !is_edit);
    let is_recalled = !new.recalled_by.is_empty();
    target.state = Some(state);
    if is_recalled {
        target.content = None;
    } else if !has_content {
        return Applied::Incomplete;
    } else if is_edit {
        target.content.clone_from(&change.content);
    }
    Applied::Changed
}

/// The reactions after a change. The server leaves `mine` out, because the change is the same for all receivers.
fn with_mine(new: &EntryState, old: &EntryState, change: &Entry, me: &str) -> Vec<ReactionCount> {
    let is_own = change.kind == envelope::REACTION && change.sender == me;
    let was_mine = |reaction: &String| old.reactions.iter().any(|old| old.mine && old.reaction == *reaction);
    let is_mine =
        |reaction: &String| if is_own { change.reactions.contains(reaction) } else { was_mine(reaction) };
    let mut reactions = new.reactions.clone();
    for count in &mut reactions {
        count.mine = is_mine(&count.reaction);
    }
    reactions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text;

    fn message() -> Entry {
        Entry {
            conversation: "g:x".into(),
            message_id: "m".into(),
            sender: "alice".into(),
            conversation_seq: 3,
            content: Some(text("first")),
            ..Entry::default()
        }
    }

    fn change(kind: &str, sender: &str, state: EntryState) -> Entry {
        Entry {
            conversation: "g:x".into(),
            kind: kind.into(),
            sender: sender.into(),
            refers_to: "m".into(),
            refers_to_seq: 3,
            conversation_seq: state.changed_seq,
            target_state: Some(state),
            ..Entry::default()
        }
    }

    fn counts(reactions: &[(&str, u32)]) -> Vec<ReactionCount> {
        let count = |(reaction, count): &(&str, u32)| ReactionCount {
            reaction: (*reaction).into(),
            count: *count,
            mine: false,
        };
        reactions.iter().map(count).collect()
    }

    #[test]
    fn an_edit_replaces_the_content_once() {
        let mut target = message();
        let state = EntryState { changed_seq: 5, edits: 1, edited_at_ms: 9, ..EntryState::default() };
        let edit = Entry { content: Some(text("second")), ..change(envelope::EDIT, "alice", state) };
        assert_eq!(apply(&edit, &mut target, "bob"), Applied::Changed);
        assert_eq!(target.content, Some(text("second")));
        assert_eq!(apply(&edit, &mut target, "bob"), Applied::Unchanged);
        let other = Entry { message_id: "n".into(), ..message() };
        assert_eq!(apply(&edit, &mut other.clone(), "bob"), Applied::Unchanged);
    }

    #[test]
    fn a_recall_removes_the_content_and_nothing_brings_it_back() {
        let mut target = message();
        let state =
            EntryState { changed_seq: 6, edits: 1, recalled_by: "alice".into(), ..EntryState::default() };
        assert_eq!(apply(&change(envelope::RECALL, "alice", state), &mut target, "bob"), Applied::Changed);
        assert_eq!(target.content, None);
        let late = EntryState { changed_seq: 5, edits: 1, ..EntryState::default() };
        let edit = Entry { content: Some(text("second")), ..change(envelope::EDIT, "alice", late) };
        assert_eq!(apply(&edit, &mut target, "bob"), Applied::Unchanged);
        assert_eq!(target.content, None);
    }

    #[test]
    fn reactions_of_others_leave_mine_as_it_was() {
        let mut target = message();
        let after = |seq, reactions: &[(&str, u32)]| EntryState {
            changed_seq: seq,
            reactions: counts(reactions),
            ..EntryState::default()
        };
        let own = Entry {
            reactions: vec!["+1".into()],
            ..change(envelope::REACTION, "bob", after(4, &[("+1", 1)]))
        };
        assert_eq!(apply(&own, &mut target, "bob"), Applied::Changed);
        let others = Entry {
            reactions: vec!["+1".into(), "!".into()],
            ..change(envelope::REACTION, "carol", after(5, &[("+1", 2), ("!", 1)]))
        };
        assert_eq!(apply(&others, &mut target, "bob"), Applied::Changed);
        let mine = |target: &Entry| -> Vec<bool> {
            target.state.as_ref().unwrap().reactions.iter().map(|count| count.mine).collect()
        };
        assert_eq!(mine(&target), [true, false]);
        let none = change(envelope::REACTION, "bob", after(6, &[("+1", 1), ("!", 1)]));
        assert_eq!(apply(&none, &mut target, "bob"), Applied::Changed);
        assert_eq!(mine(&target), [false, false]);
    }

    #[test]
    fn a_change_without_state_or_after_a_missed_edit_asks_for_the_entry() {
        let mut target = message();
        let state = EntryState { changed_seq: 5, edits: 2, ..EntryState::default() };
        let second = Entry { content: Some(text("third")), ..change(envelope::EDIT, "alice", state.clone()) };
        assert_eq!(apply(&second, &mut target, "bob"), Applied::Incomplete, "the first edit is missing");
        let from_history = Entry { target_state: None, ..second };
        assert_eq!(apply(&from_history, &mut target, "bob"), Applied::Unchanged);
        assert_eq!(apply(&from_history, &mut message(), "bob"), Applied::Incomplete);
    }
}
