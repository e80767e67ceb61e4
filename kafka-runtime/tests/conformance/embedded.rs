//! What only the embedded log promises. Guards P1 and P7.

use crate::backend::{Backend, Embedded};
use crate::support::{Handled, Running, consumer, enqueue, eventually, expected, payload, produce};
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

/// A consumer that has begun to try the first record, and fails as long as `blocked`.
async fn blocked_by_the_first_record(
    backend: &Embedded,
    handled: &Handled,
    blocked: &Arc<AtomicBool>,
) -> Running {
    let (still, tried) = (Arc::clone(blocked), Arc::new(AtomicBool::new(false)));
    let trying = Arc::clone(&tried);
    let handler = handled.deciding(move |_| {
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
async fn appends_wait_while_the_consumer_is_behind_and_late_ones_are_never_written() {
    let backend = Embedded::with(|config| {
        config.max_backlog = 50;
        config.produce_timeout = Duration::from_millis(300);
    });
    let blocked = Arc::new(AtomicBool::new(true));
    let handled = Handled::default();
    let running = blocked_by_the_first_record(&backend, &handled, &blocked).await;
    let answers: Vec<_> = (0..80).map(|n| enqueue(backend.log(), record("a", format!("a:{n}")))).collect();
    let mut outcomes = Vec::new();
    for answer in answers {
        outcomes.push(answer.await.unwrap());
    }
    let written = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(outcomes[..written].iter().all(Result::is_ok), "the first ones are written");
    assert!(
        outcomes[written..].iter().all(|outcome| *outcome == Err(ProduceError::TimedOut)),
        "{outcomes:?}"
    );
    assert_eq!(written, 49, "up to the backlog");

    // A topic that nobody reads is not held back, or dead letters could not be written.
    backend.log().send(ProducerRecord::new("events.dead".into(), "k", "letter")).await.unwrap();

    blocked.store(false, Ordering::SeqCst);
    handled.reach(50).await;
    eventually("there is room again", async || backend.log().send(record("a", "last")).await.is_ok()).await;
    handled.reach(51).await;
    running.stop().await;
    assert_eq!(handled.payloads(), [vec!["first".into()], expected("a", 49), vec!["last".into()]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_what_waits_behind_a_record_that_is_given_up_is_given_up_too() {
    let backend = Embedded::with(|config| {
        config.max_backlog = 1;
        config.produce_timeout = Duration::from_millis(500);
    });
    let (blocked, handled) = (Arc::new(AtomicBool::new(true)), Handled::default());
    let running = blocked_by_the_first_record(&backend, &handled, &blocked).await;
    let first = enqueue(backend.log(), record("a", "1"));
    tokio::time::sleep(Duration::from_millis(400)).await;
    let second = enqueue(backend.log(), record("a", "2"));
    assert_eq!(first.await.unwrap(), Err(ProduceError::TimedOut));
    blocked.store(false, Ordering::SeqCst);
    assert_eq!(second.await.unwrap(), Err(ProduceError::TimedOut), "though its own time had not run out");
    let sent_before_the_answer_was_read = backend.log().send(record("a", "3")).await;
    assert_eq!(sent_before_the_answer_was_read, Err(ProduceError::TimedOut));
    for number in ["1", "2", "3"] {
        eventually("it is taken", async || backend.log().send(record("a", number)).await.is_ok()).await;
    }
    handled.reach(4).await;
    running.stop().await;
    assert_eq!(handled.payloads(), ["first", "1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once() {
    let backend = Embedded::with(|config| {
        config.max_backlog = 1;
        config.max_queued = 10;
        config.produce_timeout = Duration::from_millis(500);
    });
    let handled = Handled::default();
    let running = blocked_by_the_first_record(&backend, &handled, &Arc::new(AtomicBool::new(true))).await;
    let answers: Vec<_> = (0..10).map(|n| enqueue(backend.log(), record("a", n.to_string()))).collect();
    let refused =
        backend.log().enqueue(record("a", "one more"), Box::new(|_| panic!("called after a refusal")));
    assert_eq!(refused, Err(ProduceError::QueueFull));
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Err(ProduceError::TimedOut));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_whole_records_and_recovers() {
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

    // A consumer catches up, its commit trims, and the log goes on by itself.
    let handled = Handled::default();
    let running = Running::start(&backend, handled.handler());
    handled.reach(acknowledged.len()).await;
    assert_eq!(handled.payloads(), acknowledged, "what was refused is not in the log");
    eventually("the log is ready again", async || backend.log().ready()).await;
    eventually("it takes records", async || match backend.log().send(record("a", "after")).await {
        Ok(position) => position.offset == acknowledged.len() as i64,
        Err(_) => false,
    })
    .await;
    handled.reach(acknowledged.len() + 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_offset_is_used_twice_after_trimming_and_reopening() {
    let mut backend = Embedded::new();
    for round in 0..4 {
        let positions = produce(&backend, &["a"], 10).await;
        let offsets: Vec<i64> = positions.iter().map(|position| position.offset).collect();
        assert_eq!(offsets, (round * 10..round * 10 + 10).collect::<Vec<_>>());
        let handled = Handled::default();
        let running = Running::start(&backend, handled.handler());
        handled.reach(10).await;
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
async fn what_was_acknowledged_is_there_after_reopening() {
    let backend = Embedded::new();
    produce(&backend, &["a", "b"], 500).await;
    let backend = backend.reopen();
    let handled = Handled::default();
    let running = Running::start(&backend, handled.handler());
    handled.reach(1000).await;
    running.stop().await;
    assert_eq!(handled.by_key()["a"], expected("a", 500));
    assert_eq!(handled.by_key()["b"], expected("b", 500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_partitions_stays_with_the_topic() {
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
    first.start().await.unwrap();
    assert!(matches!(first.next().await, Ok(Event::Assigned(partitions)) if partitions.len() == 1));
    let second = log.source("group", &["events"]).unwrap();
    assert!(matches!(second.start().await, Err(Error::Attached { .. })));
    drop(first);
    second.start().await.expect("the first one has left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_killed_as_it_begins_leaves_the_group_free() {
    let backend = Embedded::new();
    let first = backend.source();
    {
        let mut start = pin!(first.start());
        assert!(futures_util::poll!(&mut start).is_pending());
        // What was asked of the log before this has been answered after it.
        backend.log().send(record("a", "1")).await.unwrap();
    }
    backend.source().start().await.expect("the first one has left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_topics_and_unknown_ones() {
    let backend = Embedded::new();
    let unknown = backend.log().send(ProducerRecord::new("nowhere".into(), "k", "v")).await;
    assert!(matches!(unknown, Err(ProduceError::Refused { .. })));

    let letters = || ProducerRecord::new("events.dead".into(), "k", "letter");
    for _ in 0..3 {
        backend.log().send(letters()).await.unwrap();
    }
    // Even somebody who reads and commits dead letters does not remove them.
    let handled = Handled::default();
    let source = Arc::new(backend.log().source("tool", &["events.dead"]).unwrap());
    let dead_letters = kafka_runtime::DeadLetters::new(backend.producer(), backend.dead_topic());
    let tool = kafka_runtime::Consumer::batches(source, handled.handler()).dead_letters(dead_letters);
    let running = Running::of(tool);
    handled.reach(3).await;
    running.stop().await;
    assert_eq!(backend.log().committed("tool", "events.dead", 0).unwrap(), Some(3));
    assert_eq!(backend.dead_letters().await.iter().map(payload).collect::<Vec<_>>(), ["letter"; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_added_while_the_log_is_open() {
    let backend = Embedded::new();
    let handled = Handled::default();
    let running = Running::of(consumer(&backend, handled.handler()));
    let topics = || vec![kafka_runtime::LogTopic::new("events", 9), kafka_runtime::LogTopic::new("more", 2)];
    backend.log().add_topics(topics()).unwrap();
    backend.log().add_topics(topics()).expect("they are there already");
    assert_eq!(backend.log().partitions("events"), Some(crate::backend::PARTITIONS));
    assert_eq!(backend.log().partitions("more"), Some(2));

    for n in 0..10 {
        let record = ProducerRecord::new("more".into(), n.to_string(), "more");
        backend.log().send(record).await.expect("the new topic takes records");
    }
    let source = backend.log().source("group", &["more"]).unwrap();
    source.start().await.unwrap();
    let Ok(Event::Assigned(assigned)) = source.next().await else { panic!("it is assigned") };
    let mut read = 0;
    while read < 10 {
        for partition in &assigned {
            let next =
                tokio::time::timeout(Duration::from_millis(50), partition.queue.next_batch(100, 1 << 20));
            read += next.await.map_or(0, |batch| batch.expect("the log is open").len());
        }
    }
    produce(&backend, &["a"], 10).await;
    handled.reach(10).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_groups_read_the_same_records() {
    let backend = Embedded::new();
    produce(&backend, &["a"], 100).await;
    let (one, two) = (Handled::default(), Handled::default());
    let first = Running::of(consumer(&backend, one.handler()));
    let source = Arc::new(backend.log().source("other", &["events"]).unwrap());
    let dead_letters = kafka_runtime::DeadLetters::new(backend.producer(), backend.dead_topic());
    let second =
        Running::of(kafka_runtime::Consumer::batches(source, two.handler()).dead_letters(dead_letters));
    one.reach(100).await;
    two.reach(100).await;
    backend.log().send(record("a", "more")).await.unwrap();
    one.reach(101).await;
    two.reach(101).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(one.payloads(), two.payloads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_for_a_group_that_is_forgotten() {
    let backend = Embedded::new();
    let last = produce(&backend, &["a"], 100).await.pop().unwrap();
    let kept =
        |backend: &Embedded| backend.log().read("events", last.partition, 0, usize::MAX).unwrap().len();
    let gone = backend.source_of("gone", &["events"]);
    gone.start().await.unwrap();
    let reading = backend.log().forget("gone");
    assert!(matches!(reading, Err(Error::Attached { .. })), "{reading:?}");
    drop(gone);
    let handled = Handled::default();
    let running = Running::start(&backend, handled.handler());
    handled.reach(100).await;
    running.stop().await;
    backend.log().send(record("a", "more")).await.unwrap();
    assert_eq!(kept(&backend), 101);

    backend.log().forget("gone").unwrap();
    eventually("all but the last two are gone", async || kept(&backend) <= 2).await;
    assert_eq!(backend.log().committed("gone", "events", last.partition).unwrap(), None);
    for name in ["archive", "gone", "never was"] {
        assert_eq!(backend.log().forget(name).is_ok(), name != "archive");
    }
    let reserved = backend.log().source("archive", &["events.dead"]);
    assert!(matches!(reserved, Err(Error::ReservedGroup { .. })), "{reserved:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_group_that_has_done_nothing_yet_misses_nothing_after_reopening() {
    let backend = Embedded::new();
    let last = produce(&backend, &["a"], 100).await.pop().unwrap();
    let (one, none, other) = (Handled::default(), Handled::default(), Handled::default());
    let others = |backend: &Embedded| Arc::new(backend.log().source("other", &["events"]).unwrap());
    let tried = Arc::new(AtomicBool::new(false));
    let trying = Arc::clone(&tried);
    let fails = none.deciding(move |_| {
        trying.store(true, Ordering::SeqCst);
        Err(HandlerError::retry("it can't handle the first record"))
    });
    let failing = Running::of(kafka_runtime::Consumer::batches(others(&backend), fails));
    eventually("the other group has begun", async || tried.load(Ordering::SeqCst)).await;
    let running = Running::start(&backend, one.handler());
    one.reach(100).await;
    running.stop().await;
    failing.abandon().await;

    let backend = backend.reopen();
    backend.log().send(record("a", "a:100")).await.unwrap();
    assert_eq!(backend.log().read("events", last.partition, 0, usize::MAX).unwrap().len(), 101);
    let running = Running::of(kafka_runtime::Consumer::batches(others(&backend), other.handler()));
    other.reach(101).await;
    running.stop().await;
    assert_eq!(other.payloads(), expected("a", 101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_topic_that_is_kept_for_one_is_kept_whoever_opens_it_first() {
    let directory = tempfile::tempdir().unwrap();
    let opened = || {
        let topics = vec![kafka_runtime::LogTopic::new("letters", 1)];
        Log::open(kafka_runtime::LogConfig::new(directory.path(), topics)).unwrap()
    };
    let letter = || ProducerRecord::new("letters".into(), "k", "letter");
    let log = opened();
    log.add_topics(vec![kafka_runtime::LogTopic::kept("letters")]).unwrap();
    for _ in 0..3 {
        log.send(letter()).await.unwrap();
    }
    let handled = Handled::default();
    let audit = kafka_runtime::Consumer::batches(
        Arc::new(log.source("audit", &["letters"]).unwrap()),
        handled.handler(),
    );
    let running = Running::of(audit);
    handled.reach(3).await;
    running.stop().await;
    log.send(letter()).await.unwrap();
    assert_eq!(log.read("letters", 0, 0, 9).unwrap().len(), 4);

    // Also from the start of the process until whoever keeps it opens it again.
    drop(log);
    let log = opened();
    log.send(letter()).await.unwrap();
    assert_eq!(log.read("letters", 0, 0, 9).unwrap().len(), 5);
}
