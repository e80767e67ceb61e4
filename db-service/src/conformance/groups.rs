use super::{
    changes::{reaction, recall},
    world::{
        APP, MAX_MEMBERS, World, added, change, code, created, dissolved, left, message, owner_changed,
        removed, renamed, save,
    },
};
use abi::{
    error::ErrorCode,
    v1::{
        CheckChangeRequest, Entry, GetHistory, GetMembersRequest, GroupCreated, HistoryVisibility, Members,
        Role, SaveOutcome, SaveResult, group_change::Change,
    },
};

const GROUP: &str = "g:1";
const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Creates a group of its owner alice and of bob.
async fn create_group(world: &World, history: HistoryVisibility) {
    world.users(&USERS).await;
    let result = world.store(change(GROUP, "alice", "0", created(&["bob", "bob", "alice"], history))).await;
    assert_eq!((result.conversation_seq, result.countable_seq), (1, 0));
    assert_eq!(format_members(&result.members.unwrap()), "1: alice* from 1, bob from 1");
}

fn format_members(members: &Members) -> String {
    let one = |member: &abi::v1::Member| {
        let owner = if member.role() == Role::Owner { "*" } else { "" };
        format!("{}{owner} from {}", member.user, member.visible_from)
    };
    format!("{}: {}", members.version, members.members.iter().map(one).collect::<Vec<_>>().join(", "))
}

async fn members(world: &World) -> String {
    let request = GetMembersRequest { app: APP.into(), conversation: GROUP.into() };
    format_members(&world.other_client().get_members(request).await.unwrap().into_inner())
}

async fn check(world: &World, entry: Entry) -> Result<Option<SaveResult>, ErrorCode> {
    let request = CheckChangeRequest { app: APP.into(), entry: prost::Message::encode_to_vec(&entry).into() };
    match world.client().check_change(request).await {
        Ok(checked) => Ok(checked.into_inner().stored),
        Err(refusal) => Err(code::<()>(Err(refusal))),
    }
}

fn by(sender: &str, id: &str, change: Change) -> Entry {
    super::world::change(GROUP, sender, id, change)
}

pub(super) async fn a_new_group_has_its_owner_and_members(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    assert_eq!(members(world).await, "1: alice* from 1, bob from 1");
    assert_eq!(world.store(message(GROUP, "bob", "1")).await.conversation_seq, 2);
    let head = world.head("bob", GROUP).await;
    assert_eq!((head.name.as_str(), head.role(), head.conversation_seq), ("A group", Role::Member, 2));
    assert_eq!((head.countable_seq, head.unread), (1, 0), "the own message does not count");
    let head = world.head("alice", GROUP).await;
    assert_eq!((head.role(), head.unread), (Role::Owner, 1));
    let request = GetMembersRequest { app: APP.into(), conversation: "g:2".into() };
    assert_eq!(code(world.client().get_members(request).await), ErrorCode::NotFound);
}

pub(super) async fn p8_only_owners_change_members(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    for (n, change) in [added(&["carol"]), removed(&["alice"])].into_iter().enumerate() {
        assert_eq!(world.reject(by("bob", &format!("b{n}"), change.clone())).await, ErrorCode::Forbidden);
        assert_eq!(world.reject(by("carol", &format!("c{n}"), change)).await, ErrorCode::Forbidden);
    }
    assert_eq!(world.reject(by("carol", "2", left())).await, ErrorCode::Forbidden);
    assert_eq!(members(world).await, "1: alice* from 1, bob from 1");
    let result = world.store(by("alice", "3", removed(&["bob"]))).await;
    assert_eq!(format_members(&result.members.unwrap()), "2: alice* from 1");
    // A former member reads what was visible, up to the removal, and can't write.
    world.store(message(GROUP, "alice", "4")).await;
    let head = world.head("bob", GROUP).await;
    assert_eq!((head.role(), head.visible_until, head.conversation_seq), (Role::Unspecified, 2, 2));
    let seqs: Vec<_> = world.entries("bob", GROUP).await.iter().map(|entry| entry.conversation_seq).collect();
    assert_eq!(seqs, [1, 2]);
    assert_eq!(world.reject(message(GROUP, "bob", "5")).await, ErrorCode::Forbidden);
    assert_eq!(world.reject(by("bob", "6", left())).await, ErrorCode::Forbidden);
}

pub(super) async fn a_forbidden_change_stores_nothing(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    let named = |name: &str, members: &[&str]| {
        let members = members.iter().map(|member| (*member).to_owned()).collect();
        Change::Created(GroupCreated { name: name.into(), members, history: 0 })
    };
    let refused = [
        (change("d:alice:bob", "alice", "1", added(&["carol"])), ErrorCode::InvalidRequest),
        (change("d:alice:bob", "alice", "2", left()), ErrorCode::InvalidRequest),
        (change("g:2", "alice", "3", named("", &[])), ErrorCode::InvalidRequest),
        (change("g:2", "alice", "4", named("a\0b", &[])), ErrorCode::InvalidRequest),
        (change("g:2", "alice", "5", named(&"é".repeat(129), &[])), ErrorCode::InvalidRequest),
        (change("g:2", "alice", "6", named("ok", &["no body"])), ErrorCode::InvalidRequest),
        (change("g:2", "alice", "8", added(&["bob"])), ErrorCode::Forbidden),
        (by("alice", "9", named("again", &[])), ErrorCode::AlreadyExists),
        (by("alice", "11", added(&[])), ErrorCode::InvalidRequest),
        (by("alice", "12", added(&["\0"])), ErrorCode::InvalidRequest),
        (by("alice", "13", removed(&[])), ErrorCode::InvalidRequest),
        (by("alice", "14", removed(&["alice"])), ErrorCode::Conflict),
        (by("alice", "16", removed(&["bob", "carol"])), ErrorCode::NotFound),
        (by("bob", "17", renamed("Mine")), ErrorCode::Forbidden),
        (by("alice", "18", renamed("")), ErrorCode::InvalidRequest),
        (by("bob", "19", owner_changed("bob")), ErrorCode::Forbidden),
        (by("alice", "20", owner_changed("carol")), ErrorCode::NotFound),
        (by("alice", "21", owner_changed("alice")), ErrorCode::Conflict),
        (by("alice", "22", owner_changed("\0")), ErrorCode::InvalidRequest),
        (by("bob", "23", dissolved()), ErrorCode::Forbidden),
    ];
    for (entry, expected) in refused {
        assert_eq!(check(world, entry.clone()).await, Err(expected), "{entry:?}");
        assert_eq!(world.reject(entry).await, expected);
    }
    let later =
        Entry { group_change: Some(abi::v1::GroupChange { change: None }), ..by("eve", "15", left()) };
    assert_eq!(world.reject(later).await, ErrorCode::Forbidden);
    assert_eq!(members(world).await, "1: alice* from 1, bob from 1");
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 1);
    assert_eq!(world.query("SELECT count(*) FROM conversations").await, 1);
    assert_eq!(world.query("SELECT head FROM conversations").await, 1);
}

pub(super) async fn p8_a_later_member_sees_only_entries_since_joining(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    world.store(message(GROUP, "alice", "1")).await;
    world.store(message(GROUP, "alice", "2")).await;
    let result = world.store(by("alice", "3", added(&["carol", "bob", "carol"]))).await;
    assert_eq!((result.conversation_seq, result.countable_seq), (4, 2));
    assert_eq!(format_members(&result.members.unwrap()), "2: alice* from 1, bob from 1, carol from 4");
    world.store(message(GROUP, "bob", "5")).await;
    for newest in [false, true] {
        let page = GetHistory { conversation: GROUP.into(), newest, ..Default::default() };
        let page = world.history("carol", page).await.unwrap();
        let mut seqs: Vec<_> = page.entries.iter().map(|entry| entry.conversation_seq).collect();
        seqs.sort_unstable();
        assert_eq!((seqs, page.more), (vec![4, 5], false));
    }
    let head = world.head("carol", GROUP).await;
    assert_eq!((head.visible_from, head.unread), (4, 1), "only later entries are unread");
}

pub(super) async fn a_member_who_comes_back_does_not_see_the_absence(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    world.store(message(GROUP, "alice", "1")).await; // 2
    world.store(by("alice", "2", removed(&["bob"]))).await; // 3
    world.store(message(GROUP, "alice", "3")).await; // 4
    let hidden = message(GROUP, "alice", "4");
    world.store(hidden.clone()).await; // 5
    let result = world.store(by("alice", "5", added(&["bob"]))).await; // 6
    assert_eq!(format_members(&result.members.unwrap()), "3: alice* from 1, bob from 1");
    world.store(message(GROUP, "alice", "6")).await; // 7
    let seqs: Vec<_> = world.entries("bob", GROUP).await.iter().map(|entry| entry.conversation_seq).collect();
    assert_eq!(seqs, [1, 2, 3, 6, 7]);
    let head = world.head("bob", GROUP).await;
    assert_eq!((head.visible_from, head.visible_until, head.role()), (1, 0, Role::Member));
    assert_eq!(head.unread, 2, "the messages of the absence do not count as unread");
    assert_eq!(world.reject(reaction(&hidden, "bob", "7", &["+1"])).await, ErrorCode::NotFound);
    world.store(recall(&hidden, "alice", "8")).await;
    assert_eq!(world.head("bob", GROUP).await.unread, 2, "a hidden message is excluded once");
    let readers = world.readers("alice", GROUP, 5).await.unwrap();
    assert!(readers.readers.is_empty(), "{readers:?}");
}

pub(super) async fn a_member_who_comes_back_to_an_open_group_has_not_read_the_absence(world: &World) {
    create_group(world, HistoryVisibility::All).await;
    world.store(message(GROUP, "alice", "1")).await;
    world.mark_read("bob", GROUP, 2).await;
    world.store(by("bob", "2", left())).await;
    world.store(message(GROUP, "alice", "3")).await;
    assert_eq!(world.head("bob", GROUP).await.unread, 0);
    world.store(by("alice", "4", added(&["bob"]))).await;
    let head = world.head("bob", GROUP).await;
    assert_eq!((head.read_seq, head.unread, head.visible_until), (2, 1, 0));
    assert_eq!(world.entries("bob", GROUP).await.len(), 5);
}

pub(super) async fn an_owner_renames_hands_over_and_dissolves_a_group(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    world.store(by("alice", "1", renamed("Other"))).await;
    assert_eq!(world.head("bob", GROUP).await.name, "Other");
    let result = world.store(by("alice", "2", owner_changed("bob"))).await;
    assert_eq!(format_members(&result.members.unwrap()), "3: alice from 1, bob* from 1");
    assert_eq!(world.reject(by("alice", "3", dissolved())).await, ErrorCode::Forbidden);
    let result = world.store(by("bob", "4", dissolved())).await;
    assert_eq!(format_members(&result.members.unwrap()), "4: ");
    for user in ["alice", "bob"] {
        assert_eq!(world.entries(user, GROUP).await.len(), 4);
        assert_eq!(world.reject(message(GROUP, user, "5")).await, ErrorCode::Forbidden);
    }
    assert_eq!(
        world.reject(by("bob", "6", created(&[], HistoryVisibility::All))).await,
        ErrorCode::AlreadyExists
    );
}

pub(super) async fn p6_a_group_change_of_a_later_version_is_stored_without_effect(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    let group_change = Some(abi::v1::GroupChange { change: None });
    let later = Entry { group_change, ..by("bob", "1", left()) };
    let result = world.store(later).await;
    assert_eq!((result.conversation_seq, result.countable_seq), (2, 0));
    assert_eq!(members(world).await, "1: alice* from 1, bob from 1");
}

pub(super) async fn a_later_member_of_a_group_with_open_history_sees_all_entries(world: &World) {
    create_group(world, HistoryVisibility::All).await;
    world.store(message(GROUP, "alice", "1")).await;
    world.store(by("alice", "2", added(&["carol"]))).await;
    let page = GetHistory { conversation: GROUP.into(), ..Default::default() };
    assert_eq!(world.history("carol", page).await.unwrap().entries.len(), 3);
    assert_eq!(world.head("carol", GROUP).await.visible_from, 1);
}

pub(super) async fn when_the_last_owner_leaves_the_oldest_member_becomes_owner(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    world.store(by("alice", "1", added(&["erin", "carol"]))).await;
    let result = world.store(by("alice", "2", left())).await;
    assert_eq!(format_members(&result.members.unwrap()), "3: bob* from 1, erin from 2, carol from 2");
    let result = world.store(by("bob", "3", left())).await;
    assert_eq!(format_members(&result.members.unwrap()), "4: erin* from 2, carol from 2");
    let result = world.store(by("carol", "4", left())).await;
    assert_eq!(format_members(&result.members.unwrap()), "5: erin* from 2");
    let result = world.store(by("erin", "5", left())).await;
    assert_eq!(format_members(&result.members.unwrap()), "6: ");
    assert_eq!(world.reject(by("erin", "6", left())).await, ErrorCode::Forbidden);
}

pub(super) async fn a_group_has_a_size_limit(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    let names: Vec<_> = (0..MAX_MEMBERS).map(|n| format!("user{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    world.users(&names).await;
    let all = created(&names, HistoryVisibility::All);
    assert_eq!(world.reject(change("g:2", "alice", "1", all)).await, ErrorCode::TooLarge);
    assert_eq!(world.reject(by("alice", "2", added(&names[1..]))).await, ErrorCode::TooLarge);
    let unknown: Vec<_> = (0..100).map(|n| format!("unknown{n}")).collect();
    let unknown: Vec<_> = unknown.iter().map(String::as_str).collect();
    assert_eq!(check(world, by("alice", "3", added(&unknown))).await, Err(ErrorCode::TooLarge));
    let result = world.store(by("alice", "4", added(&names[2..]))).await;
    assert_eq!(result.members.unwrap().members.len(), MAX_MEMBERS);
    world.store(by("alice", "5", added(&["bob"]))).await;
    assert_eq!(world.reject(by("alice", "6", added(&["carol"]))).await, ErrorCode::TooLarge);
}

pub(super) async fn p2_a_check_returns_the_seqs_of_a_stored_change(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    assert_eq!(check(world, by("alice", "1", added(&["carol"]))).await, Ok(None));
    let saved = world.store(by("alice", "1", added(&["carol"]))).await;
    world.store(message(GROUP, "bob", "1")).await;
    let stored = check(world, by("alice", "1", added(&["carol"]))).await.unwrap().unwrap();
    assert_eq!((stored.outcome(), stored.conversation_seq), (SaveOutcome::Duplicate, saved.conversation_seq));
    assert_eq!(stored.members, saved.members);
    for other in [added(&["dave"]), removed(&["carol"])] {
        assert_eq!(check(world, by("alice", "1", other)).await, Err(ErrorCode::Conflict));
    }
    // Message ids of messages and of changes are distinct.
    assert_eq!(world.store(message(GROUP, "alice", "1")).await.conversation_seq, 4);
}

pub(super) async fn p2_a_check_concurrent_with_the_change_is_not_refused(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    for n in 0..40 {
        world.store(by("alice", &format!("a{n}"), added(&["carol"]))).await;
        let removal = by("alice", &format!("r{n}"), removed(&["carol"]));
        let until_stored = async || while check(world, removal.clone()).await.expect("allowed").is_none() {};
        tokio::join!(until_stored(), until_stored(), until_stored(), world.store(removal.clone()));
    }
}

pub(super) async fn p2_a_message_stored_before_its_sender_left_is_a_duplicate(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    let stored = world.store(message(GROUP, "bob", "1")).await;
    world.store(by("alice", "1", removed(&["bob"]))).await;
    let batch = vec![message(GROUP, "alice", "2"), message(GROUP, "bob", "1"), message(GROUP, "bob", "2")];
    let results = world.save(batch).await;
    let outcomes = [SaveOutcome::Stored, SaveOutcome::Duplicate, SaveOutcome::Rejected];
    assert_eq!(results.iter().map(SaveResult::outcome).collect::<Vec<_>>(), outcomes);
    assert_eq!(results[1].conversation_seq, stored.conversation_seq);
}

pub(super) async fn p2_a_repeated_change_is_applied_once(world: &World) {
    create_group(world, HistoryVisibility::FromJoin).await;
    let first = world.store(by("alice", "1", added(&["carol"]))).await;
    world.store(by("alice", "2", removed(&["carol"]))).await;
    let batch =
        vec![by("alice", "1", added(&["carol"])), by("alice", "0", created(&[], HistoryVisibility::All))];
    let again = save(&mut world.other_client(), batch).await;
    for (result, seq) in again.iter().zip([first.conversation_seq, 1]) {
        assert_eq!((result.outcome(), result.conversation_seq), (SaveOutcome::Duplicate, seq));
        assert_eq!(format_members(result.members.as_ref().unwrap()), "3: alice* from 1, bob from 1");
    }
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 3);
}

pub(super) async fn a_check_predicts_the_result_of_a_save(world: &World) {
    world.users(&USERS).await;
    let create = by("alice", "0", created(&["bob"], HistoryVisibility::All));
    assert_eq!(check(world, create.clone()).await, Ok(None));
    assert_eq!(world.query("SELECT count(*) FROM conversations").await, 0);
    world.store(create.clone()).await;
    assert!(check(world, create).await.unwrap().is_some(), "a retry of a stored change succeeds");
    let other = by("alice", "1", created(&["bob"], HistoryVisibility::All));
    assert_eq!(check(world, other).await, Err(ErrorCode::AlreadyExists));
    assert_eq!(check(world, by("alice", "2", added(&["carol"]))).await, Ok(None));
    assert_eq!(check(world, by("bob", "3", added(&["carol"]))).await, Err(ErrorCode::Forbidden));
    assert_eq!(check(world, message(GROUP, "bob", "4")).await, Ok(None));
    for outsider in
        [message(GROUP, "carol", "4"), message("g:none", "bob", "4"), message("d:a:b", "bob", "4")]
    {
        assert_eq!(check(world, outsider).await, Err(ErrorCode::Forbidden));
    }
    world.store(message("d:alice:bob", "bob", "4")).await;
    let stored = check(world, message("d:alice:bob", "bob", "4")).await.unwrap().unwrap();
    assert_eq!((stored.outcome(), stored.conversation_seq), (SaveOutcome::Duplicate, 1));
    // Only a check asks whether accounts exist: a save decides from the log alone.
    assert_eq!(check(world, by("alice", "5", added(&["nobody"]))).await, Err(ErrorCode::NotFound));
    let unknown = change("g:2", "alice", "6", created(&["nobody"], HistoryVisibility::All));
    assert_eq!(check(world, unknown).await, Err(ErrorCode::NotFound));
    assert_eq!(world.query("SELECT count(*) FROM entries").await, 2, "a check stores nothing");
}

pub(super) async fn a_group_created_twice_at_once_is_one_group(world: &World) {
    world.users(&USERS).await;
    for round in 0..10 {
        let id = format!("g:{round}");
        let create = |sender| vec![change(&id, sender, "0", created(&["bob"], HistoryVisibility::All))];
        let (mut first, mut second) = (world.client(), world.other_client());
        let (one, two) = tokio::join!(save(&mut first, create("alice")), save(&mut second, create("carol")));
        let mut outcomes = [one[0].outcome(), two[0].outcome()];
        outcomes.sort_unstable();
        assert_eq!(outcomes, [SaveOutcome::Stored, SaveOutcome::Rejected]);
    }
    assert_eq!(world.query("SELECT count(*) FROM conversations WHERE head = 1").await, 10);
    assert_eq!(world.query("SELECT count(*) FROM members").await, 20);
}
