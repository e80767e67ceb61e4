//! Direct messages.

use crate::world::{World, handle, lines, message, record};
use cache::Counters as _;
use prost::Message as _;

#[tokio::test]
async fn p1_p4_a_batch_is_stored_counted_and_pushed_once() {
    let world = World::new();
    let batch = [
        message("d:alice:bob", "alice", "one"),
        message("d:alice:carol", "carol", "two"),
        message("d:alice:bob", "bob", "three"),
        message("d:dave:dave", "dave", "four"),
    ];
    let outcome = world.handle(&batch).await.unwrap();
    assert!(outcome.rejected.is_empty());
    let pushed = world.pushed();
    let expected =
        ["alice 3 +3 one#1 two#1 three#2", "bob 2 +2 one#1 three#2", "carol 1 +1 two#1", "dave 1 +1 four#1"];
    assert_eq!(pushed, expected);
    let history = world.history("bob", "d:alice:bob").await;
    assert_eq!(history.iter().map(|entry| entry.countable_seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(history[1].sender, "bob");
    assert_eq!((world.seq("alice").await, world.seq("bob").await), (3, 2));
}

#[tokio::test]
async fn p2_a_redelivered_record_is_a_notification_and_not_a_second_message() {
    let world = World::new();
    let first = message("d:alice:bob", "alice", "one");
    world.handle_from(0, std::slice::from_ref(&first)).await.unwrap();
    world.pushes();
    world.handle_from(0, &[first, message("d:alice:bob", "alice", "two")]).await.unwrap();
    // An increment by 2 with one entry: the devices see that they have to sync.
    assert_eq!(world.pushed(), ["alice 3 +2 two#2", "bob 3 +2 two#2"]);
    assert_eq!(world.history("bob", "d:alice:bob").await.len(), 2);
}

#[tokio::test]
async fn p2_a_retry_of_a_sender_makes_no_device_sync() {
    let world = World::new();
    let first = message("d:alice:bob", "alice", "one");
    world.handle_from(0, std::slice::from_ref(&first)).await.unwrap();
    world.pushes();
    // Two further records of the entry, and another entry.
    world.handle_from(1, std::slice::from_ref(&first)).await.unwrap();
    assert!(world.pushes().is_empty());
    world.handle_from(2, &[first.clone(), message("d:alice:bob", "alice", "two")]).await.unwrap();
    assert_eq!(world.pushed(), ["alice 2 +1 two#2", "bob 2 +1 two#2"]);
    // The log redelivers a retry, too. Its receivers are notified, which is harmless.
    world.handle_from(1, &[first]).await.unwrap();
    assert_eq!(world.pushed(), ["alice 3 +1", "bob 3 +1"]);
    assert_eq!(world.history("bob", "d:alice:bob").await.len(), 2);
}

#[tokio::test]
async fn p2_a_message_twice_in_a_batch_is_stored_once() {
    let world = World::new();
    let one = message("d:alice:bob", "alice", "one");
    world.handle(&[one.clone(), one]).await.unwrap();
    assert_eq!(world.pushed(), ["alice 1 +1 one#1", "bob 1 +1 one#1"]);
    assert_eq!(world.history("bob", "d:alice:bob").await.len(), 1);
}

#[tokio::test]
async fn p6_undecodable_and_unstorable_records_are_rejected_with_a_reason_and_do_not_block_others() {
    let world = World::new();
    let mut records = [
        record(&message("d:alice:bob", "alice", "zero")),
        record(&message("d:alice:bob", "alice", "one")),
        record(&message("g:nowhere", "alice", "two")),
        record(&message("d:bob:alice", "alice", "three")),
        record(&message("d:alice:bob", "alice", "poison")),
        record(&message("d:alice:bob", "alice", "four")),
    ];
    records[0].payload = "no entry at all".into();
    let rejected = handle(&world.handler, &records).await.unwrap().rejected;
    let mut indexes: Vec<_> = rejected.iter().map(|rejected| rejected.index).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, [0, 2, 3, 4]);
    assert!(rejected.iter().all(|rejected| !rejected.reason.is_empty()));
    let reason =
        rejected.iter().find(|rejected| rejected.index == 4).map(|rejected| rejected.reason.as_str());
    assert_eq!(reason, Some("poison"));
    assert_eq!(world.pushed(), ["alice 2 +2 one#1 four#2", "bob 2 +2 one#1 four#2"]);
}

#[tokio::test]
async fn p7_a_large_batch_is_pushed_in_parts_with_consecutive_counters() {
    let world = World::new();
    let text = |number: u32| format!("{number}{}", "x".repeat(16 << 10));
    let batch: Vec<_> = (0..500).map(|number| message("d:alice:bob", "alice", &text(number))).collect();
    world.handle(&batch).await.unwrap();
    let pushes = world.pushes();
    assert!(pushes.len() > 3);
    let mut seq = 0;
    for push in &pushes {
        assert!(push.encoded_len() < 4 << 20);
        seq += push.entries.len() as u64;
        for receiver in &push.receivers {
            assert_eq!(receiver.receiver_seq.unwrap().seq, seq);
            assert_eq!(receiver.raised as usize, push.entries.len());
        }
    }
    assert_eq!(seq, 500);
}

#[tokio::test]
async fn applications_are_isolated() {
    let world = World::new();
    let one = record(&message("d:alice:bob", "alice", "one"));
    let mut other = one.clone();
    other.key = abi::record::key("other", "d:alice:bob");
    let two = record(&message("d:alice:bob", "alice", "two"));
    handle(&world.handler, &[one, other, two]).await.unwrap();
    let mut pushes = world.pushes();
    assert_eq!(pushes.len(), 3);
    assert_eq!(pushes.remove(1).app, "other");
    assert_eq!(lines(&pushes[0]), ["alice 1 +1 one#1", "bob 1 +1 one#1"]);
    assert_eq!(lines(&pushes[1]), ["alice 2 +1 two#2", "bob 2 +1 two#2"]);
    assert_eq!(
        world.cache.changes("other", "alice", abi::v1::ReceiverSeq::default()).await.unwrap().now.seq,
        1
    );
}
