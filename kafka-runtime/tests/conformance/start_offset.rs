//! The start offset of a group that is new to a topic.

use crate::backend::{Backend, PARTITIONS};
use crate::support::{Handled, Running, config, consumer, eventually, expected, payload, produce};
use kafka_runtime::{Consumer, Event, Health, InitialOffset, PartitionStart, StartOffsets};
use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Reads `count` records without committing any, then leaves.
async fn read(backend: &impl Backend, initial: InitialOffset, count: usize) -> BTreeMap<String, Vec<String>> {
    let source = backend.source_from(initial);
    source.start(None).await.unwrap();
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
    source.start(None).await.unwrap();
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

/// Lets another group attach that reads nothing, so that the embedded log keeps all records.
async fn keep_records(backend: &impl Backend) {
    let source = backend.source_of("idle", &[&backend.topic()]);
    source.start(None).await.unwrap();
    assert!(matches!(source.next().await, Ok(Event::Assigned(_))));
    source.close().await;
}

/// The arguments of the calls of a hook.
type Asked = Arc<Mutex<Vec<PartitionStart>>>;

/// A hook for start offsets.
fn hook(
    asked: &Asked,
    choose: impl Fn(&PartitionStart) -> Result<Option<i64>, String> + Send + Sync + 'static,
) -> impl Fn(PartitionStart) -> Ready<Result<Option<i64>, String>> + Send + Sync + 'static {
    let asked = Arc::clone(asked);
    move |start: PartitionStart| {
        let chosen = choose(&start);
        asked.lock().unwrap().push(start);
        ready(chosen)
    }
}

pub(crate) async fn a_consumer_begins_at_the_offset_that_its_hook_chooses(backend: impl Backend) {
    keep_records(&backend).await;
    produce(&backend, &KEYS, 5).await;
    let first = Handled::default();
    let running = Running::start(&backend, first.handler());
    first.wait_for(5 * KEYS.len()).await;
    running.stop().await;
    let ends = backend.committed().await;

    // The last two records of each partition are missing in the database of this handler.
    let asked = Asked::default();
    let choose = hook(&asked, |start| Ok(start.committed.map(|committed| committed - 2)));
    let second = Handled::default();
    let running = Running::spawn(consumer(&backend, second.handler()).config(config()).start_offsets(choose));
    second.wait_for(2 * ends.len()).await;
    produce_from(&backend, 5, 6).await;
    second.wait_for(2 * ends.len() + KEYS.len()).await;
    running.stop().await;
    let mut asked: Vec<_> = asked.lock().unwrap().clone();
    asked.retain(|start| start.end > 0);
    assert_eq!(asked.len(), ends.len());
    for PartitionStart { partition, committed, first, end } in asked {
        let expected = ends[&partition.partition];
        assert_eq!((committed, first, end), (Some(expected), 0, expected), "{partition}");
    }
    let mut offsets = BTreeMap::<i32, Vec<i64>>::new();
    for record in second.records() {
        offsets.entry(record.partition).or_default().push(record.offset);
    }
    for (partition, end) in &ends {
        let handled = &offsets[partition];
        assert_eq!(handled[0], end - 2, "partition {partition}");
        assert!(handled.windows(2).all(|pair| pair[1] == pair[0] + 1), "{handled:?}");
    }

    // The group continues from there.
    let third = Handled::default();
    let running = Running::start(&backend, third.handler());
    produce_from(&backend, 6, 7).await;
    third.wait_for(KEYS.len()).await;
    running.stop().await;
    assert_eq!(third.len(), KEYS.len(), "everything before is committed");
}

pub(crate) async fn nothing_is_read_while_the_hook_for_the_start_offset_fails(backend: impl Backend) {
    produce(&backend, &KEYS, 5).await;
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let asked = Asked::default();
    let choose = hook(&asked, move |start| {
        assert_eq!(start.committed, None);
        if failing.load(Ordering::SeqCst) { Err("the database is down".into()) } else { Ok(None) }
    });
    let source = backend.source();
    let handled = Handled::default();
    let consumer = Consumer::batches(Arc::clone(&source), handled.handler()).config(config());
    let running = Running::spawn(consumer.start_offsets(choose));
    eventually("the health has the reason", async || {
        matches!(source.health(), Health::Failing { reason } if reason.ends_with("the database is down"))
    })
    .await;
    eventually("the hook is asked again", async || asked.lock().unwrap().len() > 2 * PARTITIONS).await;
    assert_eq!(handled.len(), 0);
    fails.store(false, Ordering::SeqCst);
    handled.wait_for(5 * KEYS.len()).await;
    assert_eq!(source.health(), Health::Ready);
    running.stop().await;
    assert_eq!(handled.by_key(), from(0, 5));
}

pub(crate) async fn a_consumer_stops_while_the_hook_for_the_start_offset_fails(backend: impl Backend) {
    let asked = Asked::default();
    let choose = hook(&asked, |_| Err("the database is down".into()));
    let handler = Handled::default().handler();
    let running = Running::spawn(consumer(&backend, handler).config(config()).start_offsets(choose));
    eventually("the hook is asked", async || !asked.lock().unwrap().is_empty()).await;
    running.stop().await;
}

pub(crate) async fn the_first_start_offset_of_a_group_is_committed_before_it_reads(backend: impl Backend) {
    produce(&backend, &KEYS, 2).await;
    for is_first in [true, false] {
        let asked = Asked::default();
        let choose = hook(&asked, |_| Ok(None));
        let source = backend.source();
        let hook: StartOffsets = Arc::new(move |start| {
            let chosen = choose(start);
            Box::pin(async move { chosen.await.map_err(Into::into) })
        });
        source.start(Some(hook)).await.unwrap();
        assert!(matches!(source.next().await, Ok(Event::Assigned(_))));
        source.close().await;
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked.len(), PARTITIONS);
        let expected = if is_first { None } else { Some(0) };
        assert!(asked.iter().all(|start| start.committed == expected && start.first == 0), "{asked:?}");
    }
}
