//! Messages and changes of groups.

use crate::world::{GROUP, World, added, created, left, lines, message, removed};
use abi::v1::Members;
use cache::{Cache as _, MEMBERS_TTL};

#[tokio::test]
async fn p3_p8_in_one_batch_everybody_gets_what_they_could_see_at_that_time() {
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
async fn members_are_asked_of_the_store_once_and_of_the_cache_after_that() {
    let world = World::with_friends().await;
    world.handle(&[created(&["bob"])]).await.unwrap();
    assert_eq!(world.faults.calls("GetMembers"), 0, "the answer to a change holds the members");
    // Another consumer, whose cache knows nothing.
    let cache = std::sync::Arc::new(cache::MemoryCache::default());
    let handler = world.handler_with(cache);
    for text in ["one", "two"] {
        let payload = abi::record::encode(&message(GROUP, "bob", text));
        crate::world::handle(&handler, &[payload.clone(), payload]).await.unwrap();
    }
    assert_eq!(world.faults.calls("GetMembers"), 1);
}

#[tokio::test]
async fn p4_whoever_joined_before_a_message_was_numbered_is_counted() {
    let world = World::with_friends().await;
    world.handle(&[created(&["bob"])]).await.unwrap();
    // A gateway saves the change itself and tells the cache before this consumer reads the record.
    let before = world.cache.members("app", GROUP).await.unwrap().unwrap();
    world.handle(&[added(&["carol"])]).await.unwrap();
    world.pushes();
    // A late writer does not bring the old members back.
    world.cache.put_members("app", GROUP, &before, MEMBERS_TTL).await.unwrap();
    world.handle(&[message(GROUP, "alice", "one")]).await.unwrap();
    assert_eq!(world.pushed(), ["alice 3 +1 one#3", "bob 3 +1 one#3", "carol 2 +1 one#3"]);
}

#[tokio::test]
async fn p8_a_member_is_not_told_of_what_came_before_they_could_see() {
    let world = World::with_friends().await;
    let one = message(GROUP, "alice", "one");
    world.handle(&[created(&["bob"]), one.clone(), added(&["carol"])]).await.unwrap();
    world.pushes();
    world.handle(&[one]).await.unwrap();
    assert_eq!(world.pushed(), ["alice 4 +1", "bob 4 +1"]);
    assert_eq!(world.seq("carol").await, 1);
}

#[tokio::test]
async fn p2_a_change_that_was_saved_before_is_a_nudge_to_all_whom_it_concerns() {
    let world = World::with_friends().await;
    world.handle(&[created(&["bob", "carol"]), removed(&["carol"])]).await.unwrap();
    world.pushes();
    world.cache.put_members("app", GROUP, &Members::default(), MEMBERS_TTL).await.unwrap();
    world.handle(&[removed(&["carol"])]).await.unwrap();
    assert_eq!(world.pushed(), ["alice 3 +1", "bob 3 +1", "carol 3 +1"]);
}

#[tokio::test]
async fn p8_a_change_that_the_rules_refuse_reaches_nobody_and_is_done() {
    let world = World::with_friends().await;
    world.handle(&[created(&["bob"])]).await.unwrap();
    world.pushes();
    let mut by_a_member = removed(&["alice"]);
    by_a_member.sender = "bob".into();
    let outcome = world.handle(&[by_a_member, created(&["mallory"])]).await.unwrap();
    assert!(outcome.rejected.is_empty(), "{outcome:?}");
    let told: Vec<_> = world.pushes().iter().flat_map(lines).collect();
    // Only the group's creation, which is known, is told again.
    assert!(told.iter().all(|line| line.ends_with("+1")), "{told:?}");
    assert_eq!(world.history("alice", GROUP).await.len(), 1);
}
