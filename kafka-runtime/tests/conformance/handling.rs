//! Handlers: order, retries, dead letters, batches. Guards P1, P3, P6 and P7.

use crate::backend::Backend;
use crate::support::{
    self, Handled, Running, config, consumer, eventually, expected, payload, produce, without_repeats,
};
use bytes::Bytes;
use kafka_runtime::dead_letters::header;
use kafka_runtime::{Batch, ConsumerConfig, HandlerError, Outcome, ProducerRecord, Rejected};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn contains(batch: &Batch, wanted: &str) -> bool {
    batch.records.iter().any(|record| payload(record) == wanted)
}

pub(crate) async fn everything_acknowledged_is_handled_in_order_per_key(backend: impl Backend) {
    let handled = Handled::default();
    let running = Running::start(&backend, handled.handler());
    let positions = produce(&backend, &KEYS, 200).await;
    handled.wait_for(KEYS.len() * 200).await;
    running.stop().await;

    let by_key = handled.by_key();
    for key in KEYS {
        assert_eq!(by_key[key], expected(key, 200), "key {key}");
    }
    let partitions: BTreeSet<i32> = positions.iter().map(|position| position.partition).collect();
    assert!(partitions.len() > 1, "twelve keys must use more than one partition");
    let read: BTreeSet<_> =
        handled.records().iter().map(|record| (record.partition, record.offset)).collect();
    let acknowledged: BTreeSet<_> =
        positions.iter().map(|position| (position.partition, position.offset)).collect();
    assert_eq!(read, acknowledged);
}

pub(crate) async fn a_record_is_delivered_unchanged(backend: impl Backend) {
    let mut record = ProducerRecord::new(backend.topic(), "key", vec![0_u8, 255, 1]);
    record.headers = vec![("trace".into(), Bytes::from_static(b"1")), ("empty".into(), Bytes::new())];
    let position = backend.producer().send(record.clone()).await.unwrap();
    let handled = Handled::default();
    let running = Running::start(&backend, handled.handler());
    handled.wait_for(1).await;
    running.stop().await;

    let read = handled.records().remove(0);
    assert_eq!((read.partition, read.offset), (position.partition, position.offset));
    assert_eq!(
        (read.topic, read.key, read.payload, read.headers),
        (record.topic, record.key, record.payload, record.headers)
    );
    assert!(read.timestamp_ms > 1_700_000_000_000, "{}", read.timestamp_ms);
}

pub(crate) async fn a_failing_batch_is_retried_and_nothing_overtakes_it(backend: impl Backend) {
    let handled = Handled::default();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&attempts);
    let running = Running::start(
        &backend,
        handled.handler_with(move |batch| {
            if contains(batch, "a:50") {
                seen.lock().unwrap().push((batch.attempt, batch.records.len()));
                if batch.attempt < 5 {
                    return Err(HandlerError::retry("the store is unavailable"));
                }
            }
            Ok(Outcome::default())
        }),
    );
    produce(&backend, &["a"], 100).await;
    produce(&backend, &["a"], 100).await;
    handled.wait_for(200).await;
    running.stop().await;

    let attempts = attempts.lock().unwrap();
    let first: Vec<u32> = attempts.iter().map(|(attempt, _)| *attempt).take(5).collect();
    assert_eq!(first, [1, 2, 3, 4, 5]);
    assert!(
        attempts.iter().take(5).all(|(_, records)| *records == attempts[0].1),
        "each attempt must have the same batch: {attempts:?}"
    );
    assert_eq!(handled.payloads(), [expected("a", 100), expected("a", 100)].concat());
}

pub(crate) async fn other_partitions_continue_while_one_fails(backend: impl Backend) {
    let blocked = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&blocked);
    let positions = produce(&backend, &KEYS, 20).await;
    let victim = positions[0].partition;
    let in_victim = positions.iter().filter(|position| position.partition == victim).count();
    let handled = Handled::default();
    let running = Running::start(
        &backend,
        handled.handler_with(move |batch| match batch.partition == victim && still.load(Ordering::SeqCst) {
            true => Err(HandlerError::retry("this partition fails")),
            false => Ok(Outcome::default()),
        }),
    );
    handled.wait_for(positions.len() - in_victim).await;
    assert!(handled.records().iter().all(|record| record.partition != victim));
    eventually("the others are committed", async || backend.committed().await.len() > 1).await;
    assert!(!backend.committed().await.contains_key(&victim));
    blocked.store(false, Ordering::SeqCst);
    handled.wait_for(positions.len()).await;
    running.stop().await;
    assert_eq!(handled.by_key()["a"], expected("a", 20));
}

pub(crate) async fn a_panic_is_retried_like_any_failure(backend: impl Backend) {
    let handled = Handled::default();
    let panics = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&panics);
    let running = Running::start(
        &backend,
        handled.handler_with(move |batch| {
            assert!(batch.attempt > 2 || count.fetch_add(1, Ordering::SeqCst) > 1_000, "the handler panics");
            Ok(Outcome::default())
        }),
    );
    produce(&backend, &["a"], 10).await;
    handled.wait_for(10).await;
    running.stop().await;
    assert_eq!(handled.payloads(), expected("a", 10));
    assert!(panics.load(Ordering::SeqCst) >= 2);
}

pub(crate) async fn rejected_records_are_dead_lettered_and_the_partition_continues(backend: impl Backend) {
    let handled = Handled::default();
    let running = Running::start(
        &backend,
        handled.handler_with(|batch| {
            let bad = |record: &kafka_runtime::Record| payload(record).ends_with('3');
            let indices = batch.records.iter().enumerate().filter(|(_, record)| bad(record));
            let rejected = indices.map(|(index, _)| Rejected { index, reason: "cannot be decoded".into() });
            Ok(Outcome { rejected: rejected.collect() })
        }),
    );
    let positions = produce(&backend, &["a"], 20).await;
    handled.wait_for(20).await;
    running.stop().await;

    let letters = backend.dead_letters().await;
    let payloads: BTreeSet<String> = letters.iter().map(payload).collect();
    assert_eq!(payloads, ["a:13".to_owned(), "a:3".to_owned()].into());
    let letter = letters.iter().find(|letter| payload(letter) == "a:13").unwrap();
    let value = |name: &str| support::header(letter, name);
    assert_eq!(letter.key, "a");
    assert_eq!(value(header::TOPIC), *backend.topic());
    assert_eq!(value(header::PARTITION), positions[13].partition.to_string());
    assert_eq!(value(header::OFFSET), positions[13].offset.to_string());
    assert_eq!(value(header::REASON), "cannot be decoded");
    assert_eq!(value(header::ATTEMPTS), "1");
    let committed = backend.committed().await;
    assert_eq!(committed[&positions[19].partition], positions[19].offset + 1);
}

pub(crate) async fn a_batch_takes_the_queued_records_up_to_the_limit(backend: impl Backend) {
    let handled = Handled::default();
    let (sizes, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (seen, open) = (Arc::clone(&sizes), Arc::clone(&gate));
    let handler = handled.handler_with(move |batch| {
        if open.load(Ordering::SeqCst) == 0 {
            return Err(HandlerError::retry("not yet"));
        }
        seen.lock().unwrap().push(batch.records.len());
        Ok(Outcome::default())
    });
    let config = ConsumerConfig { max_records: 30, ..config() };
    let running = Running::spawn(consumer(&backend, handler).config(config));
    // The duration of the first fetch varies, and the test cannot observe when all records are queued. So
    // repeat: attempts fail until the gate opens, until one round finds all of its records queued.
    let mut rounds = Vec::new();
    for round in 1..=10 {
        gate.store(0, Ordering::SeqCst);
        produce(&backend, &["a"], 95).await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        gate.store(1, Ordering::SeqCst);
        handled.wait_for(95 * round).await;
        rounds.push(std::mem::take(&mut *sizes.lock().unwrap()));
        if rounds.last().is_some_and(|sizes| sizes.len() <= 6) {
            break;
        }
    }
    running.stop().await;
    assert!(rounds.iter().flatten().all(|size| *size <= 30), "{rounds:?}");
    assert!(
        rounds.iter().any(|sizes| sizes.len() <= 6),
        "queued records must be handled together: {rounds:?}"
    );
}

pub(crate) async fn a_partition_that_falls_behind_loses_no_record(backend: impl Backend) {
    // More than any queue holds, so that fetching is paused and resumed.
    let body = "x".repeat(1000);
    let producer = backend.producer();
    let topic = backend.topic();
    for chunk in 0..12 {
        let records = (0..1000).map(|n| {
            let payload = format!("{}:{body}", chunk * 1000 + n);
            crate::support::enqueue(producer.as_ref(), ProducerRecord::new(Arc::clone(&topic), "a", payload))
        });
        for answer in records.collect::<Vec<_>>() {
            answer.await.unwrap().unwrap();
        }
    }
    let handled = Handled::default();
    let failures = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failures);
    let running = Running::start(
        &backend,
        handled.handler_with(move |batch| {
            // Every batch fails a few times, long enough for the queue behind it to fill.
            if batch.attempt < 6 {
                count.fetch_add(1, Ordering::SeqCst);
                return Err(HandlerError::retry("slow"));
            }
            Ok(Outcome::default())
        }),
    );
    handled.wait_for(12_000).await;
    running.stop().await;
    let numbers: Vec<String> = handled
        .payloads()
        .iter()
        .map(|payload| payload.split(':').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(without_repeats(numbers.clone()).len(), numbers.len(), "no record must come twice");
    assert_eq!(numbers, (0..12_000).map(|n| n.to_string()).collect::<Vec<_>>());
}
