//! Transformations: each output exists exactly once, despite crashes. Guards P1 and P2.

use crate::backend::{Backend, Embedded, Kafka, brokers};
use crate::support::{Handled, Running, config, eventually, payload, produce};
use kafka_runtime::{
    Batch, Consumer, ConsumerConfig, DeadLetters, HandlerError, ProducerRecord, Record, RetryPolicy,
    TransformHandler,
};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
/// Time limit of a step of a transaction.
const STEP: Duration = Duration::from_secs(10);

/// Small batches, so that there are many transactions.
fn small() -> ConsumerConfig {
    ConsumerConfig { max_records: 5, ..config() }
}

/// A consumer that copies each record to the output topic if `decide` returns `Ok`. Counts the records it
/// received.
fn copying(
    backend: &impl Backend,
    seen: &Arc<AtomicUsize>,
    decide: impl Fn(&Batch) -> Result<(), HandlerError> + Clone + Send + Sync + 'static,
) -> Consumer {
    let (out, seen) = (backend.out_topic(), Arc::clone(seen));
    let handler = tower::service_fn(move |batch: Batch| {
        let result = decide(&batch).map(|()| {
            let copy = |record: &Record| {
                ProducerRecord::new(out.clone(), record.key.clone(), record.payload.clone())
            };
            batch.records.iter().map(copy).collect::<Vec<_>>()
        });
        seen.fetch_add(batch.records.len(), Ordering::SeqCst);
        std::future::ready(result)
    });
    consumer(backend, handler)
}

fn consumer(backend: &impl Backend, handler: impl TransformHandler) -> Consumer {
    let dead_letters = DeadLetters::new(backend.producer(), backend.dead_topic());
    Consumer::transform(backend.source(), handler).dead_letters(dead_letters).config(small())
}

/// The numbers of each key, in the order of the topic.
async fn numbers(backend: &impl Backend) -> BTreeMap<String, Vec<usize>> {
    let mut numbers = BTreeMap::<String, Vec<usize>>::new();
    for record in backend.outputs().await {
        let (key, number) = payload(&record).split_once(':').map(|(k, n)| (k.to_owned(), n.parse())).unwrap();
        numbers.entry(key).or_default().push(number.unwrap());
    }
    numbers
}

async fn assert_each_once(backend: &impl Backend, count: usize) {
    let expected: BTreeMap<_, Vec<usize>> =
        KEYS.into_iter().map(|key| (key.to_owned(), (0..count).collect())).collect();
    assert_eq!(numbers(backend).await, expected, "each must exist once, in order");
}

async fn all_committed(backend: &impl Backend, count: usize) {
    eventually("all records are committed", async || {
        backend.committed().await.values().sum::<i64>() as usize == KEYS.len() * count
    })
    .await;
}

pub(crate) async fn outputs_exist_exactly_once_although_consumers_are_killed(backend: impl Backend) {
    produce(&backend, &KEYS, 100).await;
    let seen = Arc::default();
    for round in 1..=3 {
        let running = Running::spawn(copying(&backend, &seen, |_| Ok(())));
        eventually("some records are handled", async || seen.load(Ordering::SeqCst) >= round * 70).await;
        running.kill().await;
    }
    let running = Running::spawn(copying(&backend, &seen, |_| Ok(())));
    all_committed(&backend, 100).await;
    running.stop().await;
    assert_each_once(&backend, 100).await;
}

pub(crate) async fn a_failed_attempt_writes_nothing(backend: impl Backend) {
    produce(&backend, &KEYS, 30).await;
    let seen = Arc::default();
    let running = Running::spawn(copying(&backend, &seen, |batch| match batch.attempt <= 2 {
        true => Err(HandlerError::retry("not yet")),
        false => Ok(()),
    }));
    all_committed(&backend, 30).await;
    running.stop().await;
    assert_each_once(&backend, 30).await;
}

pub(crate) async fn the_good_records_of_a_rejected_batch_are_written_once(backend: impl Backend) {
    produce(&backend, &KEYS, 20).await;
    let seen = Arc::default();
    let is_bad = |record: &Record| payload(record).ends_with(":7");
    let running =
        Running::spawn(copying(&backend, &seen, move |batch| match batch.records.iter().any(is_bad) {
            true => Err(HandlerError::reject("a seven")),
            false => Ok(()),
        }));
    all_committed(&backend, 20).await;
    running.stop().await;
    let good: Vec<usize> = (0..20).filter(|number| *number != 7).collect();
    for (key, numbers) in numbers(&backend).await {
        assert_eq!(numbers, good, "{key}");
    }
    assert_eq!(backend.dead_letters().await.len(), KEYS.len());
}

pub(crate) async fn a_record_with_a_rejected_output_is_dead_lettered(backend: impl Backend) {
    produce(&backend, &KEYS, 5).await;
    let out = backend.out_topic();
    let handler = tower::service_fn(move |batch: Batch| {
        let make = |record: &Record| {
            let large = payload(record).ends_with(":3");
            let made = if large { vec![0; 3 << 20] } else { record.payload.to_vec() };
            ProducerRecord::new(out.clone(), record.key.clone(), made)
        };
        std::future::ready(Ok::<Vec<_>, HandlerError>(batch.records.iter().map(make).collect()))
    });
    let running = Running::spawn(consumer(&backend, handler));
    all_committed(&backend, 5).await;
    running.stop().await;
    for (key, numbers) in numbers(&backend).await {
        assert_eq!(numbers, [0, 1, 2, 4], "{key}");
    }
    assert_eq!(backend.dead_letters().await.len(), KEYS.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_temporarily_rejected_outputs_are_not_dead_lettered() {
    let backend = Embedded::with(|config| {
        config.max_backlog = 4;
        config.produce_timeout = Duration::from_millis(50);
    });
    produce(&backend, &KEYS, 10).await;
    let behind = backend.source_of("behind", &["events.out"]);
    behind.start(None).await.unwrap();
    let seen = Arc::default();
    let retry = RetryPolicy { attempts: std::num::NonZeroU32::new(2), ..small().retry };
    let copying = copying(&backend, &seen, |_| Ok(())).config(ConsumerConfig { retry, ..small() });
    let running = Running::spawn(copying);
    eventually("every record was tried often", async || {
        seen.load(Ordering::SeqCst) >= 20 * KEYS.len() || !backend.dead_letters().await.is_empty()
    })
    .await;
    drop(behind);
    all_committed(&backend, 10).await;
    running.stop().await;
    assert!(backend.dead_letters().await.is_empty());
    assert_each_once(&backend, 10).await;
}

/// A transactional producer. It aborts the open transaction of another producer with this id. Blocks.
fn transactional(name: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers().join(",")).set("transactional.id", name);
    let producer: BaseProducer = config.create().unwrap();
    producer.init_transactions(STEP).unwrap();
    producer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kafka_the_isolation_decides_whether_uncommitted_records_are_read() {
    let mut backend = Kafka::new().await;
    let committed = Handled::default();
    let reading_committed = Running::start(&backend, committed.handler());
    backend.source_config.isolation = "read_uncommitted".into();
    backend.source_config.group.push_str("-uncommitted");
    let all = Handled::default();
    let reading_all = Running::start(&backend, all.handler());

    let topic = backend.topic();
    let write = |payload: &'static str, producer: BaseProducer| {
        let topic = Arc::clone(&topic);
        let write = move || {
            producer.begin_transaction().unwrap();
            producer
                .send(BaseRecord::to(&topic).key("a").payload(payload))
                .map_err(|(error, _)| error)
                .unwrap();
            producer.flush(STEP).unwrap();
            producer
        };
        tokio::task::spawn_blocking(write)
    };
    let name = format!("{topic}-writer");
    let producer = tokio::task::spawn_blocking(move || transactional(&name)).await.unwrap();
    let producer = write("aborted", producer).await.unwrap();
    all.wait_for(1).await;
    let abort = move || producer.abort_transaction(STEP).map(|()| producer).unwrap();
    let producer = tokio::task::spawn_blocking(abort).await.unwrap();
    let producer = write("committed", producer).await.unwrap();
    all.wait_for(2).await;
    assert_eq!(committed.len(), 0, "records of an open transaction must not be read");
    tokio::task::spawn_blocking(move || producer.commit_transaction(STEP).unwrap()).await.unwrap();
    committed.wait_for(1).await;

    reading_committed.stop().await;
    reading_all.stop().await;
    assert_eq!(committed.payloads(), ["committed"]);
    assert_eq!(all.payloads(), ["aborted", "committed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kafka_joining_and_leaving_members_write_no_output_twice() {
    let backend = Kafka::new().await;
    produce(&backend, &KEYS, 150).await;
    let seen = Arc::default();
    let slow = |_: &Batch| Ok(());
    let first = Running::spawn(copying(&backend, &seen, slow));
    eventually("the first member has started", async || seen.load(Ordering::SeqCst) > 50).await;
    let second = Running::spawn(copying(&backend, &seen, slow));
    eventually("more records are handled", async || seen.load(Ordering::SeqCst) > 250).await;
    first.kill().await;
    all_committed(&backend, 150).await;
    second.stop().await;
    assert_each_once(&backend, 150).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kafka_a_fenced_producer_is_replaced() {
    let mut backend = Kafka::new().await;
    backend.source_config.instance_id = Some("one".into());
    produce(&backend, &KEYS, 100).await;
    let seen = Arc::default();
    let running = Running::spawn(copying(&backend, &seen, |_| Ok(())));
    eventually("the consumer has started", async || seen.load(Ordering::SeqCst) > 50).await;
    let group = &backend.source_config.group;
    let name = format!("{group}-one-{}", group.len());
    tokio::task::spawn_blocking(move || drop(transactional(&name))).await.unwrap();
    all_committed(&backend, 100).await;
    running.stop().await;
    assert_each_once(&backend, 100).await;
}
