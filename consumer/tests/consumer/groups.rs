//! Messages to groups and group changes.

use crate::world::{GROUP, World, added, created, left, lines, message, record, removed};
use abi::v1::Members;
use cache::{Groups as _, MEMBERS_TTL};

#[tokio::test]
async fn p3_p8_users_receive_the_entries_visible_to_them_at_that_point_of_the_batch() {
    let world = World::with_friends().await;
    let batch = [
        created(&["bob"]),
        message(GROUP, "alice", "one"),
        removed(&["bob"]),
        message(GROUP, "alice", "two"),
        added(&["carol"]),
        message(GROUP, "carol", "three"),
        left("carol"),
        message(GROUP, "alice", "four"),
    ];
    let outcome = world.handle(&batch).await.unwrap();
    assert!(outcome.rejected.is_empty(), "{outcome:?}");
    let mut got = std::collections::BTreeMap::<String, Vec<String>>::new();
    for push in world.pushes() {
        for line in lines(&push) {
            let words: Vec<_> = line.split(' ').collect();
            got.entry(words[0].to_owned())
                .or_default()
                .extend(words[3..].iter().map(|word| (*word).to_owned()));
        }
    }
    assert_eq!(got["alice"].join(" "), "created#1 one#2 removed#3 two#4 added#5 three#6 left#7 four#8");
    assert_eq!(got["bob"].join(" "), "created#1 one#2 removed#3");
    assert_eq!(got["carol"].join(" "), "added#5 three#6 left#7");
    assert_eq!((world.seq("alice").await, world.seq("bob").await, world.seq("carol").await), (8, 3, 3));
}

#[tokio::test]
async fn members_are_read_from_the_store_once_and_then_from_the_cache() {
    let world = World::with_friends().await;
    world.handle(&[created(&["bob"])]).await.unwrap();
    assert_eq!(world.faults.calls("GetMembers"), 0, "the result of a change contains the members");
    // Another consumer, with an empty cache.
    let cache = std::sync::Arc::new(cache::MemoryCache::default());
    let handler = world.handler_with(cache);
    for text in ["one", "two"] {
        let record = record(&message(GROUP, "bob", text));
        crate::world::handle(&handler, &[record.clone(), record]).await.unwrap();
    }
    assert_eq!(world.faults.calls("GetMembers"), 1);
}

#[tokio::test]
async fn p4_a_user_who_joined_before_a_message_was_numbered_receives_it() {
    let world = World::with_friends().await;
    world.handle(&[created(&["bob"])]).await.unwrap();
    // A cached version from before the change must not replace the new one.
    let before = world.cache.members("app", GROUP).await.unwrap().unwrap();
    world.handle(&[added(&["carol"])]).await.unwrap();
    world.pushes();
    world.cache.put_members("app", GROUP, &before, MEMBERS_TTL).await.unwrap();
    world.handle(&[message(GROUP, "alice", "one")]).await.unwrap();
    assert_eq!(world.pushed(), ["alice 3 +1 one#3", "bob 3 +1 one#3", "carol 2 +1 one#3"]);
}

#[tokio::test]
async fn p8_a_redelivered_message_is_not_counted_for_later_members() {
    let world = World::with_friends().await;
    let one = message(GROUP, "alice", "one");
    world.handle_from(0, &[created(&["bob"]), one.clone(), added(&["carol"])]).await.unwrap();
    world.pushes();
    world.handle_from(1, &[one]).await.unwrap();
    assert_eq!(world.pushed(), ["alice 4 +1", "bob 4 +1"]);
    assert_eq!(world.seq("carol").await, 1);
}

#[tokio::test]
async fn p2_a_retry_of_a_sender_asks_for_no_members_and_notifies_no_user() {
    let world = World::with_friends().await;
    let log = [created(&["bob"]), message(GROUP, "bob", "one"), added(&["carol"])];
    world.handle_from(0, &log).await.unwrap();
    world.pushes();
    let handler = world.handler_with(std::sync::Arc::new(cache::MemoryCache::default()));
    let calls = world.faults.calls("GetMembers");
    let retries: Vec<_> = log.iter().map(record).collect();
    crate::world::handle_at(&handler, 0, 3, &retries).await.unwrap();
    assert!(world.pushes().is_empty());
    assert_eq!(world.faults.calls("GetMembers"), calls);
    assert_eq!(world.history("bob", GROUP).await.len(), 3);
}

#[tokio::test]
async fn p2_a_redelivered_change_is_a_notification_to_members_and_removed_users() {
    let world = World::with_friends().await;
    world.handle_from(0, &[created(&["bob", "carol"]), removed(&["carol"])]).await.unwrap();
    world.pushes();
    world.cache.put_members("app", GROUP, &Members::default(), MEMBERS_TTL).await.unwrap();
    world.handle_from(1, &[removed(&["carol"])]).await.unwrap();
    assert_eq!(world.pushed(), ["alice 3 +1", "bob 3 +1", "carol 3 +1"]);
}

#[tokio::test]
async fn p8_a_forbidden_change_is_dropped_without_a_push() {
    let world = World::with_friends().await;
    world.handle(&[created(&["bob"])]).await.unwrap();
    world.pushes();
    let mut by_a_member = removed(&["alice"]);
    by_a_member.sender = "bob".into();
    let outcome = world.handle(&[by_a_member, created(&["mallory"])]).await.unwrap();
    assert!(outcome.rejected.is_empty(), "{outcome:?}");
    assert!(world.pushes().is_empty());
    assert_eq!(world.history("alice", GROUP).await.len(), 1);
}
