//! Commits cover processed records only, in order. Guards P1, P3 and P9.

use crate::backend::Backend;
use crate::support::{Handled, Running, config, consumer, eventually, expected, produce, without_repeats};
use kafka_runtime::{Batch, ConsumerConfig, HandlerError, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

pub(crate) async fn a_restart_resumes_at_the_committed_offset(backend: impl Backend) {
    produce(&backend, &["a", "b"], 50).await;
    let first = Handled::default();
    let running = Running::start(&backend, first.handler());
    first.wait_for(100).await;
    running.stop().await;

    let producer = backend.producer();
    for n in 50..60 {
        let record = kafka_runtime::ProducerRecord::new(backend.topic(), "a", format!("a:{n}"));
        producer.send(record).await.unwrap();
    }
    let second = Handled::default();
    let running = Running::start(&backend, second.handler());
    second.wait_for(10).await;
    running.stop().await;
    assert_eq!(second.payloads(), expected("a", 60)[50..], "no record repeated, none skipped");
}

pub(crate) async fn uncommitted_records_are_delivered_again(backend: impl Backend) {
    let positions = produce(&backend, &["a"], 40).await;
    let first = Handled::default();
    let config = ConsumerConfig { max_records: 10, commit_interval: Duration::from_millis(10), ..config() };
    let failed = Arc::new(AtomicBool::new(false));
    let fails = Arc::clone(&failed);
    let handler = first.handler_with(move |batch| {
        if batch.records.iter().any(|record| record.offset >= 20) {
            fails.store(true, Ordering::SeqCst);
            return Err(HandlerError::retry("fails from this record on"));
        }
        Ok(Outcome::default())
    });
    let running = Running::spawn(consumer(&backend, handler).config(config));
    let partition = positions[0].partition;
    eventually("the handled records are committed", async || {
        let handled = first.len() as i64;
        failed.load(Ordering::SeqCst)
            && backend.committed().await.get(&partition).copied().unwrap_or(0) == handled
    })
    .await;
    running.kill().await;

    let done = first.len();
    let second = Handled::default();
    let running = Running::start(&backend, second.handler());
    second.wait_for(40 - done).await;
    running.stop().await;
    assert_eq!(second.payloads(), expected("a", 40)[done..]);
}

pub(crate) async fn commits_never_pass_an_unhandled_record(backend: impl Backend) {
    let handled = Handled::default();
    let config = ConsumerConfig { max_records: 3, commit_interval: Duration::from_millis(1), ..config() };
    let handler = handled.handler_with(|batch| match batch.attempt <= (batch.records[0].offset % 4) as u32 {
        true => Err(HandlerError::retry("a temporary failure")),
        false => Ok(Outcome::default()),
    });
    let running = Running::spawn(consumer(&backend, handler).config(config));
    let keys = ["a", "b", "c", "d", "e", "f"];
    produce(&backend, &keys, 30).await;
    let done = AtomicBool::new(false);
    while !done.load(Ordering::SeqCst) {
        done.store(handled.len() >= keys.len() * 30, Ordering::SeqCst);
        // Read the committed offsets first: the records below them must have been handled earlier.
        let committed = backend.committed().await;
        let records = handled.records();
        for (partition, next) in committed {
            let count =
                records.iter().filter(|record| record.partition == partition && record.offset < next).count();
            assert_eq!(
                count as i64, next,
                "partition {partition}: every record below the committed offset must be handled"
            );
        }
    }
    running.stop().await;
    let total: i64 = backend.committed().await.values().sum();
    assert_eq!(total, (keys.len() * 30) as i64, "all records must be committed at the end");
}

pub(crate) async fn nothing_is_committed_while_the_hook_fails(backend: impl Backend) {
    let handled = Handled::default();
    let works = Arc::new(AtomicBool::new(false));
    let called = Arc::new(Notify::new());
    let (hook_works, hook_called) = (Arc::clone(&works), Arc::clone(&called));
    let consumer = consumer(&backend, handled.handler()).config(config()).before_commit(move || {
        hook_called.notify_one();
        let works = hook_works.load(Ordering::SeqCst);
        async move { if works { Ok(()) } else { Err("the store is not synced") } }
    });
    let running = Running::spawn(consumer);
    produce(&backend, &["a"], 10).await;
    handled.wait_for(10).await;
    called.notified().await;
    called.notified().await;
    assert!(backend.committed().await.is_empty());
    works.store(true, Ordering::SeqCst);
    eventually("the records are committed", async || backend.committed().await.values().sum::<i64>() == 10)
        .await;
    running.stop().await;
}

fn slow(handled: &Handled, started: &Arc<Notify>, time: Duration) -> impl kafka_runtime::BatchHandler {
    let (handled, started) = (handled.clone(), Arc::clone(started));
    tower::service_fn(move |batch: Batch| {
        let (handled, started) = (handled.clone(), Arc::clone(&started));
        async move {
            started.notify_one();
            tokio::time::sleep(time).await;
            handled.add(&batch);
            Ok::<_, HandlerError>(Outcome::default())
        }
    })
}

pub(crate) async fn a_drain_finishes_and_commits_the_batch_in_flight(backend: impl Backend) {
    produce(&backend, &["a"], 5).await;
    let (handled, started) = (Handled::default(), Arc::new(Notify::new()));
    let running = Running::start(&backend, slow(&handled, &started, Duration::from_millis(300)));
    started.notified().await;
    running.stop().await;
    let done = handled.len() as i64;
    assert!(done > 0, "the batch in flight must be finished");
    assert_eq!(backend.committed().await.values().sum::<i64>(), done);
}

pub(crate) async fn a_drain_ends_at_its_deadline(backend: impl Backend) {
    produce(&backend, &["a"], 5).await;
    let (handled, started) = (Handled::default(), Arc::new(Notify::new()));
    let config = ConsumerConfig { finish_timeout: Duration::from_millis(200), ..config() };
    let handler = slow(&handled, &started, Duration::from_secs(3600));
    let running = Running::spawn(consumer(&backend, handler).config(config));
    started.notified().await;
    let begin = Instant::now();
    running.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert!(backend.committed().await.is_empty());

    let again = Handled::default();
    let running = Running::start(&backend, again.handler());
    again.wait_for(5).await;
    running.stop().await;
    assert_eq!(without_repeats(again.payloads()), expected("a", 5));
}
