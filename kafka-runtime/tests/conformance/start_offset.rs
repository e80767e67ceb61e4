//! The start offset of a group that is new to a topic.

use crate::backend::{Backend, PARTITIONS};
use crate::support::{eventually, expected, payload, produce};
use kafka_runtime::{Event, InitialOffset};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Reads `count` records without committing any, then leaves.
async fn read(backend: &impl Backend, initial: InitialOffset, count: usize) -> BTreeMap<String, Vec<String>> {
    let source = backend.source_from(initial);
    source.start().await.unwrap();
    let (sender, mut records) = tokio::sync::mpsc::channel(100);
    let mut readers = JoinSet::new();
    let Ok(Event::Assigned(assigned)) = source.next().await else { panic!("not assigned") };
    for partition in assigned {
        let sender = sender.clone();
        readers.spawn(async move {
            while let Some(batch) = partition.queue.next_batch(100, 1 << 20).await {
                for record in batch {
                    let key = String::from_utf8(record.key.to_vec()).unwrap();
                    sender.send((key, payload(&record))).await.unwrap();
                }
            }
        });
    }
    let mut read = BTreeMap::<String, Vec<String>>::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(20), records.recv()).await;
        let (key, payload) = next.expect("more records must come").expect("the channel is open");
        read.entry(key).or_default().push(payload);
    }
    source.close().await;
    read
}

/// Lets the group store its start offset, and leaves without reading.
async fn store_start_offset(backend: &impl Backend, initial: InitialOffset) {
    let source = backend.source_from(initial);
    source.start().await.unwrap();
    assert!(matches!(source.next().await, Ok(Event::Assigned(_))));
    eventually("the start offset is stored", async || backend.committed().await.len() == PARTITIONS).await;
    source.close().await;
}

fn from(first: usize, count: usize) -> BTreeMap<String, Vec<String>> {
    KEYS.iter().map(|key| ((*key).to_owned(), expected(key, count)[first..].to_vec())).collect()
}

async fn produce_from(backend: &impl Backend, first: usize, count: usize) {
    for n in first..count {
        for key in KEYS {
            let record = kafka_runtime::ProducerRecord::new(backend.topic(), key, format!("{key}:{n}"));
            backend.producer().send(record).await.expect("acknowledged");
        }
    }
}

pub(crate) async fn a_new_group_can_start_with_the_next_record(backend: impl Backend) {
    produce(&backend, &KEYS, 5).await;
    store_start_offset(&backend, InitialOffset::Latest).await;
    // No member runs while these are written. Their offsets follow the start offset, so the group must read them.
    produce_from(&backend, 5, 8).await;
    assert_eq!(read(&backend, InitialOffset::Latest, 3 * KEYS.len()).await, from(5, 8));
}

pub(crate) async fn a_new_group_can_start_at_a_given_time(backend: impl Backend) {
    produce(&backend, &KEYS, 5).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    tokio::time::sleep(Duration::from_millis(20)).await;
    produce_from(&backend, 5, 8).await;
    let time = InitialOffset::Time { ms: i64::try_from(now).unwrap() };
    assert_eq!(read(&backend, time, 3 * KEYS.len()).await, from(5, 8));

    // The start offset is stored: another time does not move it.
    let read = read(&backend, InitialOffset::Time { ms: i64::MAX / 2 }, 3 * KEYS.len()).await;
    assert_eq!(read, from(5, 8));
}

pub(crate) async fn a_group_with_committed_offsets_resumes_there(backend: impl Backend) {
    produce(&backend, &KEYS, 5).await;
    // A time after every record means the end.
    store_start_offset(&backend, InitialOffset::Time { ms: 1 << 42 }).await;
    produce_from(&backend, 5, 7).await;
    assert_eq!(read(&backend, InitialOffset::Earliest, 2 * KEYS.len()).await, from(5, 7));
}
