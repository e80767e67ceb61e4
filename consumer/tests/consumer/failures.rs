//! Failures of what a consumer needs.

use crate::world::{GROUP, World, created, handle, message};
use abi::{
    config::{Redis, Secret},
    record::encode,
};
use cache::RedisCache;
use std::sync::Arc;
use tonic::Code;

#[tokio::test]
async fn p6_while_the_store_is_away_a_batch_fails_and_nothing_is_counted() {
    let world = World::new();
    let batch = [message("d:alice:bob", "alice", "one")];
    for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Internal, Code::ResourceExhausted] {
        world.faults.set("Save", Some(code));
        world.handle(&batch).await.unwrap_err();
    }
    assert_eq!((world.seq("bob").await, world.pushes().len()), (0, 0));
    world.faults.set("Save", None);
    world.handle(&batch).await.unwrap();
    assert_eq!(world.pushed(), ["alice 1 +1 one#1", "bob 1 +1 one#1"]);
}

#[tokio::test]
async fn p6_while_members_are_not_to_be_had_a_batch_fails() {
    let world = World::with_friends().await;
    world.handle(&[created(&["bob"])]).await.unwrap();
    world.pushes();
    let handler = world.handler_with(Arc::new(cache::MemoryCache::default()));
    let batch = [encode(&message(GROUP, "alice", "one"))];
    world.faults.set("GetMembers", Some(Code::Unavailable));
    handle(&handler, &batch).await.unwrap_err();
    world.faults.set("GetMembers", None);
    handle(&handler, &batch).await.unwrap();
    // It was saved by the first attempt, so it is a nudge now; nobody is forgotten.
    assert_eq!(world.pushed(), ["alice 1 +1", "bob 1 +1"]);
}

#[tokio::test]
async fn p6_while_the_cache_is_away_a_batch_fails_and_is_repaired_by_the_next_attempt() {
    let world = World::new();
    let nowhere = Redis { url: Secret::new("redis://127.0.0.1:1"), ..Redis::default() };
    let without_cache = world.handler_with(Arc::new(RedisCache::new(&nowhere).unwrap()));
    let batch = [encode(&message("d:alice:bob", "alice", "one"))];
    handle(&without_cache, &batch).await.unwrap_err();
    assert!(world.pushes().is_empty(), "pushed without a counter");
    handle(&world.handler, &batch).await.unwrap();
    assert_eq!(world.pushed(), ["alice 1 +1", "bob 1 +1"]);
    assert_eq!(world.history("bob", "d:alice:bob").await.len(), 1);
}

#[tokio::test]
async fn p5_a_push_that_fails_does_not_hold_up_the_log() {
    let world = World::new();
    world.fail_pushes(Some(Code::Unavailable));
    world.handle(&[message("d:alice:bob", "alice", "one")]).await.unwrap();
    assert_eq!(world.seq("bob").await, 1, "the counter is what tells devices");
}

#[tokio::test]
async fn p1_offsets_are_committed_only_after_the_store_has_synced() {
    let world = World::new();
    let hook = consumer::before_commit(world.db.clone());
    hook().await.unwrap();
    assert_eq!(world.faults.calls("Sync"), 1);
    world.faults.set("Sync", Some(Code::Unavailable));
    hook().await.unwrap_err();
}
