//! Failures of the store, the cache and the pusher.

use crate::world::{GROUP, World, batch, created, handle_at, handle_batch, message, record};
use abi::config::{Redis, Secret};
use cache::RedisCache;
use std::sync::Arc;
use tonic::Code;

#[tokio::test]
async fn p6_while_the_store_is_unavailable_a_batch_fails_and_no_counter_changes() {
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
async fn p6_a_batch_that_the_store_saves_too_slowly_is_saved_in_parts() {
    let world = World::new();
    world.faults.limit_saves(10);
    let texts: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let records: Vec<_> = texts.iter().map(|text| record(&message("d:alice:bob", "alice", text))).collect();
    let mut attempts = 1;
    while handle_batch(&world.handler, batch(0, 0, &records, attempts)).await.is_err() {
        attempts += 1;
        assert!(attempts < 5, "it is never saved");
    }
    let stored = world.history("bob", "d:alice:bob").await;
    let stored: Vec<_> = stored.into_iter().map(|entry| entry.client_msg_id).collect();
    assert_eq!(stored, texts, "each once, in order");
}

#[tokio::test]
async fn p6_while_members_are_unavailable_a_batch_fails() {
    let world = World::with_friends().await;
    world.handle(&[created(&["bob"])]).await.unwrap();
    world.pushes();
    let handler = world.handler_with(Arc::new(cache::MemoryCache::default()));
    let batch = [record(&message(GROUP, "alice", "one"))];
    world.faults.set("GetMembers", Some(Code::Unavailable));
    handle_at(&handler, 0, 0, &batch).await.unwrap_err();
    world.faults.set("GetMembers", None);
    handle_at(&handler, 0, 0, &batch).await.unwrap();
    // The first attempt saved it, so it is a duplicate now. Both members are notified.
    assert_eq!(world.pushed(), ["alice 1 +1", "bob 1 +1"]);
}

#[tokio::test]
async fn p6_while_the_cache_is_unavailable_a_batch_fails_and_its_retry_notifies_all_receivers() {
    let world = World::new();
    let unreachable = Redis { url: Secret::new("redis://127.0.0.1:1"), ..Redis::default() };
    let without_cache = world.handler_with(Arc::new(RedisCache::new(&unreachable).unwrap()));
    let batch = [record(&message("d:alice:bob", "alice", "one"))];
    handle_at(&without_cache, 0, 0, &batch).await.unwrap_err();
    assert!(world.pushes().is_empty(), "pushed although the receiver seqs were not incremented");
    handle_at(&world.handler, 0, 0, &batch).await.unwrap();
    assert_eq!(world.pushed(), ["alice 1 +1", "bob 1 +1"]);
    assert_eq!(world.history("bob", "d:alice:bob").await.len(), 1);
}

#[tokio::test]
async fn p5_a_failed_push_does_not_fail_the_batch() {
    let world = World::new();
    world.fail_pushes(Some(Code::Unavailable));
    world.handle(&[message("d:alice:bob", "alice", "one")]).await.unwrap();
    assert_eq!(world.seq("bob").await, 1, "the receiver seq still tells the devices to sync");
}

#[tokio::test]
async fn p1_the_commit_hook_succeeds_only_after_the_store_has_synced() {
    let world = World::new();
    let hook = consumer::before_commit(world.db.clone());
    hook().await.unwrap();
    assert_eq!(world.faults.calls("Sync"), 1);
    world.faults.set("Sync", Some(Code::Unavailable));
    hook().await.unwrap_err();
}
