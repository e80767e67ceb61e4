//! Edits, recalls and reactions.

use super::world::{
    self, APP, SENT_AT_MS, World, added, change, code, created, message, removed, save, text,
};
use abi::{
    error::ErrorCode,
    v1::{CheckChangeRequest, Entry, EntryState, HistoryVisibility, ReactionCount, SaveOutcome, SaveResult},
};

const GROUP: &str = "g:1";
const WINDOW_MS: i64 = crate::rules::tests::LIMITS.edit_window_ms;

pub(super) fn reply(target: &Entry, sender: &str, client_msg_id: &str) -> Entry {
    let message = message(&target.conversation, sender, client_msg_id);
    Entry { refers_to: target.message_id.clone(), ..message }
}

pub(super) fn edit(target: &Entry, sender: &str, client_msg_id: &str) -> Entry {
    world::edit(&target.conversation, sender, client_msg_id, &target.message_id)
}

pub(super) fn recall(target: &Entry, sender: &str, client_msg_id: &str) -> Entry {
    world::recall(&target.conversation, sender, client_msg_id, &target.message_id)
}

pub(super) fn reaction(target: &Entry, sender: &str, client_msg_id: &str, reactions: &[&str]) -> Entry {
    world::reaction(&target.conversation, sender, client_msg_id, &target.message_id, reactions)
}

/// A group of its owner alice, bob and carol, and a message of bob.
async fn group(world: &World) -> Entry {
    world.users(&["alice", "bob", "carol"]).await;
    world.store(change(GROUP, "alice", "0", created(&["bob", "carol"], HistoryVisibility::FromJoin))).await;
    let message = message(GROUP, "bob", "m");
    world.store(message.clone()).await;
    message
}

async fn check(world: &World, entry: &Entry) -> Result<Option<SaveResult>, ErrorCode> {
    let request = CheckChangeRequest { app: APP.into(), entry: prost::Message::encode_to_vec(entry).into() };
    match world.other_client().check_change(request).await {
        Ok(checked) => Ok(checked.into_inner().stored),
        Err(refusal) => Err(code::<()>(Err(refusal))),
    }
}

/// Asserts that an entry is refused by a check and by a save.
async fn refuse(world: &World, entry: Entry, expected: ErrorCode) {
    assert_eq!(check(world, &entry).await, Err(expected), "{entry:?}");
    assert_eq!(world.reject(entry).await, expected);
}

/// Asserts that a check allows an entry, and stores it. Returns the state of the entry that it changes.
async fn apply(world: &World, entry: Entry) -> EntryState {
    assert_eq!(check(world, &entry).await, Ok(None));
    let result = world.store(entry).await;
    assert_eq!(result.refers_to_seq, 2);
    result.target_state.unwrap()
}

async fn content(world: &World, user: &str) -> Option<abi::v1::Content> {
    world.entries(user, GROUP).await.remove(1).content
}

fn counts(state: &EntryState) -> Vec<(&str, u32)> {
    state.reactions.iter().map(|counted| (counted.reaction.as_str(), counted.count)).collect()
}

pub(super) async fn only_the_author_edits(world: &World) {
    let target = group(world).await;
    for user in ["alice", "carol", "eve"] {
        refuse(world, edit(&target, user, "1"), ErrorCode::Forbidden).await;
    }
    refuse(world, Entry { content: None, ..edit(&target, "bob", "2") }, ErrorCode::InvalidRequest).await;
    let later = Entry { sent_at_ms: SENT_AT_MS + 7, ..edit(&target, "bob", "4") };
    assert_eq!(apply(world, edit(&target, "bob", "3")).await.edits, 1);
    let state = apply(world, later).await;
    let expected =
        EntryState { changed_seq: 4, edits: 2, edited_at_ms: SENT_AT_MS + 7, ..EntryState::default() };
    assert_eq!(state, expected);
    assert_eq!(content(world, "carol").await, text("edit 4"), "the last edit wins");
    assert_eq!(world.entries("carol", GROUP).await[1].state, Some(expected));
    assert_eq!(world.query("SELECT countable FROM conversations").await, 1);
    assert_eq!(world.query("SELECT shown FROM conversations").await, 2, "an edit is not shown in lists");
}

pub(super) async fn an_author_or_an_owner_recalls(world: &World) {
    let target = group(world).await;
    let of_owner = message(GROUP, "alice", "o");
    world.store(of_owner.clone()).await;
    refuse(world, recall(&target, "carol", "1"), ErrorCode::Forbidden).await;
    refuse(world, recall(&of_owner, "bob", "2"), ErrorCode::Forbidden).await;
    let state = apply(world, recall(&target, "alice", "3")).await;
    assert_eq!((state.changed_seq, state.recalled_by.as_str()), (4, "alice"));
    assert_eq!(content(world, "bob").await, None);
    for entry in [
        recall(&target, "bob", "4"),
        recall(&target, "alice", "5"),
        edit(&target, "bob", "6"),
        reaction(&target, "carol", "7", &["+1"]),
    ] {
        refuse(world, entry, ErrorCode::Conflict).await;
    }
    // Nobody owns a direct conversation.
    let direct = message("d:alice:bob", "bob", "d");
    world.store(direct.clone()).await;
    refuse(world, recall(&direct, "alice", "8"), ErrorCode::Forbidden).await;
    assert_eq!(world.store(recall(&direct, "bob", "9")).await.refers_to_seq, 1);
}

pub(super) async fn a_recalled_entry_is_not_unread(world: &World) {
    let target = group(world).await;
    world.store(message(GROUP, "bob", "n")).await;
    world.mark_read("carol", GROUP, 2).await;
    let unread = async |user| world.head(user, GROUP).await.unread;
    assert_eq!((unread("alice").await, unread("bob").await, unread("carol").await), (2, 0, 1));
    world.store(recall(&target, "bob", "1")).await;
    assert_eq!((unread("alice").await, unread("bob").await, unread("carol").await), (1, 0, 1));
    for (seq, expected) in [(1, 1), (2, 1), (3, 0), (4, 0)] {
        world.mark_read("alice", GROUP, seq).await;
        assert_eq!(unread("alice").await, expected, "read up to {seq}");
    }
}

pub(super) async fn reactions_are_one_set_per_user_and_entry(world: &World) {
    let target = group(world).await;
    let state = apply(world, reaction(&target, "bob", "1", &["a", "b", "a"])).await;
    assert_eq!(counts(&state), [("a", 1), ("b", 1)]);
    let state = apply(world, reaction(&target, "carol", "2", &["c", "b"])).await;
    assert_eq!(counts(&state), [("a", 1), ("b", 2), ("c", 1)], "in the order of first use");
    assert_eq!(counts(&apply(world, reaction(&target, "bob", "3", &["b"])).await), [("b", 2), ("c", 1)]);
    let mine = |state: &EntryState| state.reactions.iter().map(|counted| counted.mine).collect::<Vec<_>>();
    for (user, expected) in [("alice", [false, false]), ("bob", [true, false]), ("carol", [true, true])] {
        let state = world.entries(user, GROUP).await.remove(1).state.unwrap();
        assert_eq!(counts(&state), [("b", 2), ("c", 1)]);
        assert_eq!(mine(&state), expected, "{user}");
    }
    let state = apply(world, reaction(&target, "carol", "4", &[])).await;
    let reactions = vec![ReactionCount { reaction: "b".into(), count: 1, mine: false }];
    assert_eq!(state, EntryState { changed_seq: 6, reactions, ..EntryState::default() });
    assert_eq!(counts(&apply(world, reaction(&target, "bob", "5", &[])).await), []);
    assert_eq!(world.query("SELECT count(*) FROM reactions").await, 0);
}

pub(super) async fn p2_a_redelivered_change_is_a_duplicate_with_the_current_state(world: &World) {
    let target = group(world).await;
    let (first, second) = (edit(&target, "bob", "1"), edit(&target, "bob", "2"));
    world.save(vec![first.clone(), reaction(&target, "carol", "3", &["+1"]), second.clone()]).await;
    let again = save(&mut world.other_client(), vec![first.clone(), second.clone()]).await;
    for (result, seq) in again.iter().zip([3, 5]) {
        assert_eq!((result.outcome(), result.conversation_seq), (SaveOutcome::Duplicate, seq));
        assert_eq!((result.refers_to_seq, result.countable_seq), (2, 1));
        let state = result.target_state.as_ref().unwrap();
        assert_eq!((state.changed_seq, state.edits, counts(state)), (5, 2, vec![("+1", 1)]));
    }
    assert_eq!(check(world, &first).await.unwrap().as_ref(), Some(&again[0]));
    assert_eq!(content(world, "alice").await, text("edit 2"));
    // A change stays stored if its author is removed later.
    world.store(change(GROUP, "alice", "4", removed(&["bob"]))).await;
    assert_eq!(world.save(vec![second]).await[0].outcome(), SaveOutcome::Duplicate);
    assert_eq!(world.reject(edit(&target, "bob", "5")).await, ErrorCode::Forbidden);
}

pub(super) async fn changes_of_changes_and_of_unknown_entries_are_refused(world: &World) {
    let target = group(world).await;
    let creation = change(GROUP, "alice", "0", created(&["bob", "carol"], HistoryVisibility::FromJoin));
    let edited = edit(&target, "bob", "1");
    world.store(edited.clone()).await;
    refuse(world, edit(&edited, "bob", "2"), ErrorCode::InvalidRequest).await;
    refuse(world, reaction(&edited, "carol", "3", &["+1"]), ErrorCode::InvalidRequest).await;
    refuse(world, recall(&creation, "alice", "4"), ErrorCode::InvalidRequest).await;
    refuse(world, recall(&message(GROUP, "bob", "lost"), "bob", "5"), ErrorCode::NotFound).await;
    refuse(world, edit(&message("g:none", "bob", "m"), "bob", "6"), ErrorCode::Forbidden).await;
    // A later member does not see the message.
    world.users(&["dave"]).await;
    world.store(change(GROUP, "alice", "7", added(&["dave"]))).await;
    refuse(world, reaction(&target, "dave", "8", &["+1"]), ErrorCode::NotFound).await;
    // Kinds of a product and of later versions can be changed.
    let order = Entry { kind: "acme.order".into(), countable: false, ..reply(&target, "dave", "9") };
    world.store(order.clone()).await;
    let state = world.store(edit(&order, "dave", "10")).await.target_state.unwrap();
    assert_eq!(state.edits, 1);
}

pub(super) async fn the_windows_apply_to_checks_only(world: &World) {
    let target = group(world).await;
    let at = |entry: Entry, ms: i64| Entry { sent_at_ms: SENT_AT_MS + ms, ..entry };
    assert_eq!(check(world, &at(edit(&target, "bob", "1"), WINDOW_MS)).await, Ok(None));
    assert_eq!(check(world, &at(recall(&target, "bob", "2"), WINDOW_MS)).await, Ok(None));
    let late = at(edit(&target, "bob", "3"), WINDOW_MS + 1);
    assert_eq!(check(world, &late).await, Err(ErrorCode::Forbidden));
    let recalled = at(recall(&target, "bob", "4"), WINDOW_MS + 1);
    assert_eq!(check(world, &recalled).await, Err(ErrorCode::Forbidden));
    assert_eq!(check(world, &at(recall(&target, "alice", "5"), i64::MAX - SENT_AT_MS)).await, Ok(None));
    assert_eq!(
        check(world, &at(reaction(&target, "bob", "6", &["+1"]), i64::MAX - SENT_AT_MS)).await,
        Ok(None)
    );
    // The gateway has acknowledged nothing that a replay of the log would refuse.
    world.store(late).await;
    world.store(recalled).await;
}

pub(super) async fn changes_have_limits(world: &World) {
    let target = group(world).await;
    let names: Vec<String> = (0..17).map(|n| format!("r{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    refuse(world, reaction(&target, "bob", "1", &names), ErrorCode::TooLarge).await;
    refuse(world, reaction(&target, "bob", "2", &[""]), ErrorCode::InvalidRequest).await;
    refuse(world, reaction(&target, "bob", "3", &["x".repeat(65).as_str()]), ErrorCode::InvalidRequest).await;
    let users = ["bob", "carol", "alice", "dave", "erin"];
    world.users(&users[3..]).await;
    let all = change("g:2", "alice", "0", created(&users, HistoryVisibility::All));
    let other = message("g:2", "bob", "m");
    world.save(vec![all, other.clone()]).await;
    for (n, user) in users.iter().enumerate() {
        let own: Vec<String> = (0..16).map(|reaction| format!("{n}-{reaction}")).collect();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let own = reaction(&other, user, "r", &own);
        if n < 4 {
            world.store(own).await;
        } else {
            refuse(world, own, ErrorCode::TooLarge).await;
        }
    }
    let edits: Vec<_> = (0..1_000).map(|n| edit(&target, "bob", &format!("e{n}"))).collect();
    let last = world.save(edits).await.pop().unwrap();
    assert_eq!(last.target_state.unwrap().edits, 1_000);
    refuse(world, edit(&target, "bob", "over"), ErrorCode::Conflict).await;
}
