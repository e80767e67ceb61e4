//! Permanent failures: exhausted attempts, rejections, no dead-letter topic. Guards P3 and P6.

use crate::backend::Backend;
use crate::support::{
    Handled, Running, config, consumer, eventually, expected, header, payload, produce, records,
};
use kafka_runtime::dead_letters::header;
use kafka_runtime::{
    Batch, Consumer, ConsumerConfig, HandlerError, Ordering as Order, Outcome, Rejected, RetryPolicy,
};
use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

fn attempts(attempts: u32) -> ConsumerConfig {
    let config = config();
    ConsumerConfig { retry: RetryPolicy { attempts: NonZeroU32::new(attempts), ..config.retry }, ..config }
}

fn is_bad(payload: &str) -> bool {
    payload.ends_with('3')
}

async fn bad_records_are_dead_lettered(backend: impl Backend, config: ConsumerConfig) {
    let handled = Handled::default();
    let handler = handled.record_handler_with(|message| match is_bad(&payload(&message.record)) {
        true => Err(HandlerError::retry(format!("failure {}", message.attempt))),
        false => Ok(()),
    });
    let positions = produce(&backend, &["a", "b"], 20).await;
    let running = Running::spawn(records(&backend, handler).config(config));
    handled.wait_for(36).await;
    eventually("all records are committed", async || backend.committed().await.values().sum::<i64>() == 40)
        .await;
    running.stop().await;

    for key in ["a", "b"] {
        let good: Vec<String> = expected(key, 20).into_iter().filter(|payload| !is_bad(payload)).collect();
        assert_eq!(handled.by_key()[key], good, "the other records must keep their order");
    }
    let letters = backend.dead_letters().await;
    let payloads: BTreeSet<String> = letters.iter().map(payload).collect();
    assert_eq!(payloads, ["a:13", "a:3", "b:13", "b:3"].map(str::to_owned).into());
    assert_eq!(letters.len(), 4, "each must be written once");
    let letter = letters.iter().find(|letter| payload(letter) == "a:13").unwrap();
    assert_eq!(header(letter, header::TOPIC), *backend.topic());
    assert_eq!(header(letter, header::PARTITION), positions[26].partition.to_string());
    assert_eq!(header(letter, header::OFFSET), positions[26].offset.to_string());
    assert_eq!(header(letter, header::ATTEMPTS), "3");
    assert_eq!(header(letter, header::REASON), "failure 3", "the last error");
}

pub(crate) async fn a_record_out_of_attempts_is_dead_lettered_and_the_order_holds(backend: impl Backend) {
    bad_records_are_dead_lettered(backend, attempts(3)).await;
}

pub(crate) async fn with_order_per_key_a_record_out_of_attempts_is_dead_lettered(backend: impl Backend) {
    let ordering = Order::Key { concurrency: NonZeroUsize::new(4).unwrap() };
    bad_records_are_dead_lettered(backend, ConsumerConfig { ordering, ..attempts(3) }).await;
}

/// Handles 20 records in batches. The handler fails with `error` if a batch contains a bad record. Returns the
/// payloads of the handled records, and the payload and number of attempts of each dead letter.
async fn bad_batches(
    backend: impl Backend,
    config: ConsumerConfig,
    error: fn() -> HandlerError,
) -> (Vec<String>, Vec<(String, String)>) {
    let handled = Handled::default();
    let running = Running::spawn(
        consumer(
            &backend,
            handled.handler_with(move |batch| {
                match batch.records.iter().any(|record| is_bad(&payload(record))) {
                    true => Err(error()),
                    false => Ok(Outcome::default()),
                }
            }),
        )
        .config(config),
    );
    produce(&backend, &["a"], 20).await;
    handled.wait_for(18).await;
    eventually("all records are committed", async || backend.committed().await.values().sum::<i64>() == 20)
        .await;
    running.stop().await;
    let letters = backend.dead_letters().await;
    let letters = letters.iter().map(|letter| (payload(letter), header(letter, header::ATTEMPTS)));
    (handled.payloads(), letters.collect())
}

fn good() -> Vec<String> {
    expected("a", 20).into_iter().filter(|payload| !is_bad(payload)).collect()
}

pub(crate) async fn only_the_bad_records_of_a_rejected_batch_are_dead_lettered(backend: impl Backend) {
    let (handled, letters) = bad_batches(backend, config(), || HandlerError::reject("unreadable")).await;
    assert_eq!(handled, good());
    let payloads: Vec<&str> = letters.iter().map(|(payload, _)| payload.as_str()).collect();
    assert_eq!(payloads, ["a:3", "a:13"]);
}

pub(crate) async fn only_the_bad_records_of_a_batch_out_of_attempts_are_dead_lettered(backend: impl Backend) {
    let (handled, letters) = bad_batches(backend, attempts(2), || HandlerError::retry("not today")).await;
    assert_eq!(handled, good());
    let payloads: Vec<&str> = letters.iter().map(|(payload, _)| payload.as_str()).collect();
    assert_eq!(payloads, ["a:3", "a:13"]);
    assert!(
        letters.iter().all(|(_, attempts)| attempts == "2" || attempts == "3"),
        "at most one more attempt alone: {letters:?}"
    );
}

pub(crate) async fn without_a_dead_letter_topic_a_rejected_record_waits_and_is_not_skipped(
    backend: impl Backend,
) {
    let (handled, bad) = (Handled::default(), Arc::new(AtomicBool::new(true)));
    let (adds, is_rejected) = (handled.clone(), Arc::clone(&bad));
    let handler = tower::service_fn(move |batch: Batch| {
        let reject = |(index, _)| Rejected { index, reason: "unreadable".into() };
        let bad = batch.records.iter().enumerate().filter(|(_, record)| payload(record) == "a:5");
        let rejected: Vec<_> = bad.map(reject).collect();
        let rejected = if is_rejected.load(Ordering::SeqCst) { rejected } else { vec![] };
        if rejected.is_empty() {
            adds.add(&batch);
        }
        async { Ok::<_, HandlerError>(Outcome { rejected }) }
    });
    let running = Running::spawn(Consumer::batches(backend.source(), handler).config(config()));
    let positions = produce(&backend, &["a"], 10).await;
    let partition = positions[0].partition;
    eventually("the records before it are committed", async || {
        backend.committed().await.get(&partition).copied() == Some(positions[5].offset)
    })
    .await;
    assert_eq!(handled.payloads(), expected("a", 5));
    // Once the handler is fixed, the record is handled.
    bad.store(false, Ordering::SeqCst);
    handled.wait_for(10).await;
    running.stop().await;
    assert_eq!(handled.payloads(), expected("a", 10));
    assert!(backend.dead_letters().await.is_empty());
}

pub(crate) async fn a_batch_waits_up_to_batch_wait_to_fill(backend: impl Backend) {
    let wait = std::time::Duration::from_millis(400);
    let (handled, sizes) = (Handled::default(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&sizes);
    let handler = handled.handler_with(move |batch| {
        seen.lock().unwrap().push(batch.records.len());
        Ok(Outcome::default())
    });
    let config = ConsumerConfig { batch_wait: wait, max_records: 30, ..config() };
    let running = Running::spawn(consumer(&backend, handler).config(config));
    produce(&backend, &["a"], 1).await;
    handled.wait_for(1).await;
    // Sent one by one: without waiting, each would be its own batch.
    for n in 0..10 {
        produce(&backend, &["a"], 1).await;
        assert!(n > 0 || handled.len() == 1, "the first one must wait for the others");
    }
    handled.wait_for(11).await;
    let trickled = sizes.lock().unwrap().len() - 1;
    assert!(trickled <= 5, "{:?}", sizes.lock().unwrap());
    // A full batch does not wait.
    sizes.lock().unwrap().clear();
    produce(&backend, &["a"], 90).await;
    handled.wait_for(101).await;
    assert!(sizes.lock().unwrap().contains(&30), "{:?}", sizes.lock().unwrap());
    running.stop().await;
}
