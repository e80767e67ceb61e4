//! The position of the store in the log.

use crate::world::{GROUP, TOPIC, World, added, created, handle_at, message, record};
use abi::v1::Entry;
use kafka_runtime::{PartitionStart, Record, TopicPartition};
use tonic::Code;

const PARTITION: i32 = 7;

/// Where a partition begins whose group has committed `committed`. `None`: there.
async fn start(world: &World, committed: Option<i64>) -> Option<i64> {
    let partition = TopicPartition { topic: TOPIC.into(), partition: PARTITION };
    let start = PartitionStart { partition, committed, first: 0, end: 1_000 };
    consumer::start_offsets(world.db.clone())(start).await.unwrap()
}

fn records(entries: &[Entry]) -> Vec<Record> {
    entries.iter().map(record).collect()
}

fn not_an_entry() -> Record {
    Record { payload: vec![0xff].into(), ..record(&message("d:alice:bob", "alice", "")) }
}

#[tokio::test]
async fn p1_a_partition_begins_at_the_position_of_the_store() {
    let world = World::new();
    assert_eq!(start(&world, Some(500)).await, Some(0), "nothing was saved");
    let texts = ["one", "two", "three"].map(|text| message("d:alice:bob", "alice", text));
    handle_at(&world.handler, PARTITION, 0, &records(&texts)).await.unwrap();
    assert_eq!(start(&world, Some(500)).await, Some(3));
    assert_eq!(start(&world, Some(3)).await, None);
    assert_eq!(start(&world, Some(2)).await, None, "saved but not committed");
    world.faults.set("Save", Some(Code::Unavailable));
    let next = records(&[message("d:alice:bob", "alice", "four")]);
    handle_at(&world.handler, PARTITION, 3, &next).await.unwrap_err();
    assert_eq!(start(&world, Some(500)).await, Some(3), "a failed save does not raise it");
}

#[tokio::test]
async fn p1_a_store_that_lost_entries_stops_the_consumer() {
    let world = World::new();
    let entry = |text| record(&message("d:alice:bob", "alice", text));
    handle_at(&world.handler, PARTITION, 0, &[entry("one")]).await.unwrap();
    // The consumer has handled the records up to 5, of which the store has only the first.
    let error = handle_at(&world.handler, PARTITION, 5, &[entry("six")]).await.unwrap_err();
    assert!(!error.is_retryable(), "the store will not find the entries by itself");
    assert!(error.to_string().starts_with("the store has lost entries: "), "{error}");
    assert_eq!(world.history("bob", "d:alice:bob").await.len(), 1);
    assert_eq!((world.seq("bob").await, world.pushes().len()), (1, 1));
    assert_eq!(start(&world, Some(5)).await, Some(1));
}

#[tokio::test]
async fn p6_without_an_answer_of_the_store_no_start_is_chosen() {
    let world = World::new();
    world.faults.set("FindStartOffset", Some(Code::Unavailable));
    let partition = TopicPartition { topic: TOPIC.into(), partition: PARTITION };
    let start = PartitionStart { partition, committed: Some(5), first: 0, end: 10 };
    let error = consumer::start_offsets(world.db.clone())(start).await.unwrap_err();
    assert!(error.to_string().starts_with("the store did not say where to begin: "), "{error}");
}

#[tokio::test]
async fn p6_the_position_passes_records_that_are_not_entries() {
    let world = World::new();
    let entry = |text| record(&message("d:alice:bob", "alice", text));
    let mixed = [not_an_entry(), entry("one"), not_an_entry(), entry("two"), not_an_entry()];
    let outcome = handle_at(&world.handler, PARTITION, 0, &mixed).await.unwrap();
    assert_eq!(outcome.rejected.iter().map(|rejected| rejected.index).collect::<Vec<_>>(), [0, 2, 4]);
    assert_eq!(start(&world, Some(500)).await, Some(5));
    handle_at(&world.handler, PARTITION, 5, &[not_an_entry(), not_an_entry()]).await.unwrap();
    assert_eq!(start(&world, Some(500)).await, Some(7), "a batch without entries");
    // The store refuses one of them, so each is saved by itself.
    let refused = [entry("three"), entry("poison"), entry("four"), entry("poison")];
    let outcome = handle_at(&world.handler, PARTITION, 7, &refused).await.unwrap();
    assert_eq!(outcome.rejected.len(), 2);
    assert_eq!(start(&world, Some(500)).await, Some(11));
    assert_eq!(world.history("bob", "d:alice:bob").await.len(), 4);
}

#[tokio::test]
async fn p4_a_redelivered_batch_rejects_the_same_entries() {
    let world = World::with_friends().await;
    let batch = [
        created(&["bob"]),
        message(GROUP, "carol", "too early"),
        message(GROUP, "bob", "one"),
        added(&["carol"]),
        message(GROUP, "carol", "two"),
    ];
    let seqs = async || {
        let entries = world.history("carol", GROUP).await;
        entries.into_iter().map(|entry| (entry.message_id, entry.conversation_seq)).collect::<Vec<_>>()
    };
    handle_at(&world.handler, PARTITION, 0, &records(&batch)).await.unwrap();
    let stored = seqs().await;
    assert_eq!(stored.len(), 2, "carol sees the entries since joining");
    assert_eq!((world.seq("alice").await, world.seq("carol").await), (4, 2));
    world.pushes();
    for first in 0..batch.len() {
        handle_at(&world.handler, PARTITION, first as i64, &records(&batch[first..])).await.unwrap();
        assert!(world.pushes().iter().all(|push| push.entries.is_empty()), "duplicates only notify");
        assert_eq!(seqs().await, stored);
    }
    // Another attempt of the sender is another record.
    handle_at(&world.handler, PARTITION, 5, &records(&batch[1..2])).await.unwrap();
    assert_eq!(seqs().await.len(), 3);
}
