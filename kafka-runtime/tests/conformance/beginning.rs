//! Where a group begins that is new to a topic.

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
    let Ok(Event::Assigned(assigned)) = source.next().await else { panic!("it is assigned") };
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
        let (key, payload) = next.expect("more records come").expect("it is read");
        read.entry(key).or_default().push(payload);
    }
    source.close().await;
    read
}

/// Makes the group begin, and leaves without having read anything.
async fn begin(backend: &impl Backend, initial: InitialOffset) {
    let source = backend.source_from(initial);
    source.start().await.unwrap();
    assert!(matches!(source.next().await, Ok(Event::Assigned(_))));
    eventually("it knows where it begins", async || backend.committed().await.len() == PARTITIONS).await;
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

pub(crate) async fn a_new_group_can_begin_with_what_comes_after_it(backend: impl Backend) {
    produce(&backend, &KEYS, 5).await;
    begin(&backend, InitialOffset::Latest).await;
    // Nobody reads while these come: what comes after the group's beginning is not missed.
    produce_from(&backend, 5, 8).await;
    assert_eq!(read(&backend, InitialOffset::Latest, 3 * KEYS.len()).await, from(5, 8));
}

pub(crate) async fn a_new_group_can_begin_at_a_time(backend: impl Backend) {
    produce(&backend, &KEYS, 5).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    tokio::time::sleep(Duration::from_millis(20)).await;
    produce_from(&backend, 5, 8).await;
    let time = InitialOffset::Time { ms: i64::try_from(now).unwrap() };
    assert_eq!(read(&backend, time, 3 * KEYS.len()).await, from(5, 8));

    // It was chosen once: another time does not move it.
    let read = read(&backend, InitialOffset::Time { ms: i64::MAX / 2 }, 3 * KEYS.len()).await;
    assert_eq!(read, from(5, 8));
}

pub(crate) async fn a_group_that_has_committed_goes_on_from_there(backend: impl Backend) {
    produce(&backend, &KEYS, 5).await;
    // Later than every record: the end.
    begin(&backend, InitialOffset::Time { ms: 1 << 42 }).await;
    produce_from(&backend, 5, 7).await;
    assert_eq!(read(&backend, InitialOffset::Earliest, 2 * KEYS.len()).await, from(5, 7));
}
