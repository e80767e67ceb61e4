//! Guarantees of the embedded log only. Guards P1 and P7.

mod retention;

use crate::backend::{Backend, Embedded};
use crate::support::{Handled, Running, consumer, enqueue, eventually, expected, produce};
use kafka_runtime::{
    Error, Event, HandlerError, Health, Log, Outcome, ProduceError, Producer, ProducerRecord, Source,
};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn record(key: &str, payload: impl Into<String>) -> ProducerRecord {
    ProducerRecord::new("events".into(), key.to_owned(), payload.into())
}

/// A consumer that is processing the first record, which fails as long as `blocked` is set.
async fn start_blocked_consumer(backend: &Embedded, handled: &Handled, blocked: &Arc<AtomicBool>) -> Running {
    let (still, tried) = (Arc::clone(blocked), Arc::new(AtomicBool::new(false)));
    let trying = Arc::clone(&tried);
    let handler = handled.handler_with(move |_| {
        trying.store(true, Ordering::SeqCst);
        match still.load(Ordering::SeqCst) {
            true => Err(HandlerError::retry("blocked")),
            false => Ok(Outcome::default()),
        }
    });
    let running = Running::start(backend, handler);
    backend.log().send(record("a", "first")).await.unwrap();
    eventually("the first record is tried", async || tried.load(Ordering::SeqCst)).await;
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_wait_for_a_slow_consumer_and_are_not_written_after_their_timeout() {
    let backend = Embedded::with(|config| {
        config.max_backlog = 50;
        config.produce_timeout = Duration::from_millis(300);
    });
    let blocked = Arc::new(AtomicBool::new(true));
    let handled = Handled::default();
    let running = start_blocked_consumer(&backend, &handled, &blocked).await;
    let answers: Vec<_> = (0..80).map(|n| enqueue(backend.log(), record("a", format!("a:{n}")))).collect();
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await.unwrap());
    }
    let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(outcomes[..written].iter().all(Result::is_ok), "the first records must be written");
    assert!(
        outcomes[written..].iter().all(|outcome| *outcome == Err(ProduceError::TimedOut)),
        "{outcomes:?}"
    );
    assert_eq!(written, 49, "up to the backlog limit");

    // Records of a topic without a consumer are not held back: dead letters must be writable.
    backend.log().send(ProducerRecord::new("events.dead".into(), "k", "letter")).await.unwrap();

    blocked.store(false, Ordering::SeqCst);
    handled.wait_for(50).await;
    eventually("there is room again", async || backend.log().send(record("a", "last")).await.is_ok()).await;
    handled.wait_for(51).await;
    running.stop().await;
    assert_eq!(handled.payloads(), [vec!["first".into()], expected("a", 49), vec!["last".into()]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_when_a_record_times_out_the_records_behind_it_fail_too() {
    let backend = Embedded::with(|config| {
        config.max_backlog = 1;
        config.produce_timeout = Duration::from_millis(500);
    });
    let (blocked, handled) = (Arc::new(AtomicBool::new(true)), Handled::default());
    let running = start_blocked_consumer(&backend, &handled, &blocked).await;
    let first = enqueue(backend.log(), record("a", "1"));
    tokio::time::sleep(Duration::from_millis(400)).await;
    let second = enqueue(backend.log(), record("a", "2"));
    assert_eq!(first.await.unwrap(), Err(ProduceError::TimedOut));
    blocked.store(false, Ordering::SeqCst);
    assert_eq!(second.await.unwrap(), Err(ProduceError::TimedOut), "it must fail before its own timeout");
    let sent_before_the_answer_was_read = backend.log().send(record("a", "3")).await;
    assert_eq!(sent_before_the_answer_was_read, Err(ProduceError::TimedOut));
    for number in ["1", "2", "3"] {
        eventually("the record is accepted", async || backend.log().send(record("a", number)).await.is_ok())
            .await;
    }
    handled.wait_for(4).await;
    running.stop().await;
    assert_eq!(handled.payloads(), ["first", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_rejects_at_once() {
    let backend = Embedded::with(|config| {
        config.max_backlog = 1;
        config.max_queued = 10;
        config.produce_timeout = Duration::from_millis(500);
    });
    let handled = Handled::default();
    let running = start_blocked_consumer(&backend, &handled, &Arc::new(AtomicBool::new(true))).await;
    let answers: Vec<_> = (0..10).map(|n| enqueue(backend.log(), record("a", n.to_string()))).collect();
    let rejected =
        backend.log().enqueue(record("a", "one more"), Box::new(|_| panic!("called for a rejected record")));
    assert_eq!(rejected, Err(ProduceError::QueueFull));
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Err(ProduceError::TimedOut));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_rejects_records_and_the_log_recovers() {
    let backend = Embedded::with(|config| config.max_file_bytes = Some(2 << 20));
    let mut acknowledged = Vec::new();
    let failure = loop {
        let body = format!("{}:{}", acknowledged.len(), "x".repeat(10_000));
        match backend.log().send(record("a", body.clone())).await {
            Ok(_) => acknowledged.push(body),
            Err(error) => break error,
        }
    };
    assert!(matches!(failure, ProduceError::Unavailable { .. }), "{failure:?}");
    assert!(failure.is_retryable());
    assert!(matches!(backend.log().health(), Health::Failing { .. }));

    // A consumer catches up, its commit trims the log, and the log recovers by itself.
    let handled = Handled::default();
    let running = Running::start(&backend, handled.handler());
    handled.wait_for(acknowledged.len()).await;
    assert_eq!(handled.payloads(), acknowledged, "rejected records must not be in the log");
    eventually("the log is ready again", async || backend.log().ready()).await;
    eventually("the log accepts records", async || match backend.log().send(record("a", "after")).await {
        Ok(position) => position.offset == acknowledged.len() as i64,
        Err(_) => false,
    })
    .await;
    handled.wait_for(acknowledged.len() + 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_not_reused_after_trimming_and_reopening() {
    let mut backend = Embedded::new();
    for round in 0..4 {
        let positions = produce(&backend, &["a"], 10).await;
        let offsets: Vec<i64> = positions.iter().map(|position| position.offset).collect();
        assert_eq!(offsets, (round * 10..round * 10 + 10).collect::<Vec<_>>());
        let handled = Handled::default();
        let running = Running::start(&backend, handled.handler());
        handled.wait_for(10).await;
        running.stop().await;
        let (partition, log) = (positions[0].partition, backend.log().clone());
        eventually("committed records are trimmed", async || {
            log.read("events", partition, 0, 99).unwrap().len() == 1
        })
        .await;
        drop(log);
        backend = backend.reopen();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_reopening() {
    let backend = Embedded::new();
    produce(&backend, &["a", "b"], 500).await;
    let backend = backend.reopen();
    let handled = Handled::default();
    let running = Running::start(&backend, handled.handler());
    handled.wait_for(1000).await;
    running.stop().await;
    assert_eq!(handled.by_key()["a"], expected("a", 500));
    assert_eq!(handled.by_key()["b"], expected("b", 500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_keeps_its_number_of_partitions() {
    let directory = tempfile::tempdir().unwrap();
    let open = |partitions| {
        let topics = vec![kafka_runtime::LogTopic::new("events", partitions)];
        Log::open(kafka_runtime::LogConfig::new(directory.path(), topics)).unwrap()
    };
    assert_eq!(open(3).partitions("events"), Some(3));
    assert_eq!(open(5).partitions("events"), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_or_consumer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        kafka_runtime::LogConfig::new(directory.path(), vec![kafka_runtime::LogTopic::new("events", 1)]);
    let log = Log::open(config.clone()).unwrap();
    assert!(matches!(Log::open(config.clone()), Err(Error::Locked { .. })));

    let first = log.source("group", &["events"]).unwrap();
    first.start(None).await.unwrap();
    assert!(matches!(first.next().await, Ok(Event::Assigned(partitions)) if partitions.len() == 1));
    let second = log.source("group", &["events"]).unwrap();
    assert!(matches!(second.start(None).await, Err(Error::Attached { .. })));
    drop(first);
    second.start(None).await.expect("the first one has detached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_killed_during_its_start_releases_the_group() {
    let backend = Embedded::new();
    let first = backend.source();
    {
        let mut start = pin!(first.start(None));
        assert!(futures_util::poll!(&mut start).is_pending());
        // The log handles requests in order: after this answer the start request has been handled.
        backend.log().send(record("a", "1")).await.unwrap();
    }
    backend.source().start(None).await.expect("the first one has detached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_can_be_added_to_an_open_log() {
    let backend = Embedded::new();
    let handled = Handled::default();
    let running = Running::spawn(consumer(&backend, handled.handler()));
    let topics = || vec![kafka_runtime::LogTopic::new("events", 9), kafka_runtime::LogTopic::new("more", 2)];
    backend.log().add_topics(topics()).unwrap();
    backend.log().add_topics(topics()).expect("they may exist already");
    assert_eq!(backend.log().partitions("events"), Some(crate::backend::PARTITIONS));
    assert_eq!(backend.log().partitions("more"), Some(2));

    for n in 0..10 {
        let record = ProducerRecord::new("more".into(), n.to_string(), "more");
        backend.log().send(record).await.expect("the new topic takes records");
    }
    let source = backend.log().source("group", &["more"]).unwrap();
    source.start(None).await.unwrap();
    let Ok(Event::Assigned(assigned)) = source.next().await else { panic!("not assigned") };
    let mut read = 0;
    while read < 10 {
        for partition in &assigned {
            let next =
                tokio::time::timeout(Duration::from_millis(50), partition.queue.next_batch(100, 1 << 20));
            read += next.await.map_or(0, |batch| batch.expect("the log must be open").len());
        }
    }
    produce(&backend, &["a"], 10).await;
    handled.wait_for(10).await;
    running.stop().await;
}
