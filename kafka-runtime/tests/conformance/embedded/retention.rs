//! Records that are kept and removed: trimming, groups, untrimmed topics. Guards P1.

use super::record;
use crate::backend::{Backend, Embedded};
use crate::support::{Handled, Running, consumer, eventually, expected, payload, produce};
use kafka_runtime::{
    Error, HandlerError, Log, Outcome, PartitionStart, ProduceError, Producer, ProducerRecord,
};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn untrimmed_topics_keep_records_and_unknown_topics_are_refused() {
    let backend = Embedded::new();
    let unknown = backend.log().send(ProducerRecord::new("nowhere".into(), "k", "v")).await;
    assert!(matches!(unknown, Err(ProduceError::Refused { .. })));

    let letters = || ProducerRecord::new("events.dead".into(), "k", "letter");
    for _ in 0..3 {
        backend.log().send(letters()).await.unwrap();
    }
    // A consumer that reads and commits dead letters does not remove them.
    let handled = Handled::default();
    let source = Arc::new(backend.log().source("tool", &["events.dead"]).unwrap());
    let dead_letters = kafka_runtime::DeadLetters::new(backend.producer(), backend.dead_topic());
    let tool = kafka_runtime::Consumer::batches(source, handled.handler()).dead_letters(dead_letters);
    let running = Running::spawn(tool);
    handled.wait_for(3).await;
    running.stop().await;
    assert_eq!(backend.log().committed("tool", "events.dead", 0).unwrap(), Some(3));
    assert_eq!(backend.dead_letters().await.iter().map(payload).collect::<Vec<_>>(), ["letter"; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_groups_read_the_same_records() {
    let backend = Embedded::new();
    produce(&backend, &["a"], 100).await;
    let (one, two) = (Handled::default(), Handled::default());
    let first = Running::spawn(consumer(&backend, one.handler()));
    let source = Arc::new(backend.log().source("other", &["events"]).unwrap());
    let dead_letters = kafka_runtime::DeadLetters::new(backend.producer(), backend.dead_topic());
    let second =
        Running::spawn(kafka_runtime::Consumer::batches(source, two.handler()).dead_letters(dead_letters));
    one.wait_for(100).await;
    two.wait_for(100).await;
    backend.log().send(record("a", "more")).await.unwrap();
    one.wait_for(101).await;
    two.wait_for(101).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(one.payloads(), two.payloads());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_not_kept_for_a_deleted_group() {
    let backend = Embedded::new();
    let last = produce(&backend, &["a"], 100).await.pop().unwrap();
    let stored =
        |backend: &Embedded| backend.log().read("events", last.partition, 0, usize::MAX).unwrap().len();
    let reader = backend.source_of("deleted", &["events"]);
    reader.start(None).await.unwrap();
    let reading = backend.log().delete_group("deleted");
    assert!(matches!(reading, Err(Error::Attached { .. })), "{reading:?}");
    drop(reader);
    let handled = Handled::default();
    let running = Running::start(&backend, handled.handler());
    handled.wait_for(100).await;
    running.stop().await;
    backend.log().send(record("a", "more")).await.unwrap();
    assert_eq!(stored(&backend), 101);

    backend.log().delete_group("deleted").unwrap();
    eventually("all but the last two are removed", async || stored(&backend) <= 2).await;
    assert_eq!(backend.log().committed("deleted", "events", last.partition).unwrap(), None);
    for name in ["archive", "deleted", "never was"] {
        assert_eq!(backend.log().delete_group(name).is_ok(), name != "archive");
    }
    let reserved = backend.log().source("archive", &["events.dead"]);
    assert!(matches!(reserved, Err(Error::ReservedGroup { .. })), "{reserved:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_group_without_progress_misses_no_record_after_reopening() {
    let backend = Embedded::new();
    let last = produce(&backend, &["a"], 100).await.pop().unwrap();
    let (one, none, other) = (Handled::default(), Handled::default(), Handled::default());
    let others = |backend: &Embedded| Arc::new(backend.log().source("other", &["events"]).unwrap());
    let tried = Arc::new(AtomicBool::new(false));
    let trying = Arc::clone(&tried);
    let fails = none.handler_with(move |_| {
        trying.store(true, Ordering::SeqCst);
        Err(HandlerError::retry("a permanent failure"))
    });
    let failing = Running::spawn(kafka_runtime::Consumer::batches(others(&backend), fails));
    eventually("the other group has started", async || tried.load(Ordering::SeqCst)).await;
    let running = Running::start(&backend, one.handler());
    one.wait_for(100).await;
    running.stop().await;
    failing.kill().await;

    let backend = backend.reopen();
    backend.log().send(record("a", "a:100")).await.unwrap();
    assert_eq!(backend.log().read("events", last.partition, 0, usize::MAX).unwrap().len(), 101);
    let running = Running::spawn(kafka_runtime::Consumer::batches(others(&backend), other.handler()));
    other.wait_for(101).await;
    running.stop().await;
    assert_eq!(other.payloads(), expected("a", 101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_records_before_the_committed_offset_stay_while_a_consumer_reads_them_again() {
    let backend = Embedded::new();
    let last = produce(&backend, &["a"], 100).await.pop().unwrap();
    let stored = || backend.log().read("events", last.partition, 0, usize::MAX).unwrap().len();
    let idle = backend.source_of("idle", &["events"]);
    idle.start(None).await.unwrap();
    let first = Handled::default();
    let running = Running::start(&backend, first.handler());
    first.wait_for(100).await;
    running.stop().await;

    let (again, tried, may_read) = (Handled::default(), Arc::default(), Arc::<AtomicBool>::default());
    let (trying, reads) = (Arc::<AtomicBool>::clone(&tried), Arc::clone(&may_read));
    let handler = again.handler_with(move |_| {
        trying.store(true, Ordering::SeqCst);
        if reads.load(Ordering::SeqCst) {
            Ok(Outcome::default())
        } else {
            Err(HandlerError::retry("not yet"))
        }
    });
    let from_first = |start: PartitionStart| ready(Ok::<_, Error>(Some(start.first)));
    let running = Running::spawn(consumer(&backend, handler).start_offsets(from_first));
    eventually("the first record is read again", async || tried.load(Ordering::SeqCst)).await;
    drop(idle);
    eventually("the idle group is gone", async || backend.log().delete_group("idle").is_ok()).await;
    for _ in 0..2 {
        backend.log().send(record("a", "more")).await.unwrap();
    }
    assert_eq!(stored(), 102, "the committed offset of both groups was beyond all of them");
    may_read.store(true, Ordering::SeqCst);
    again.wait_for(102).await;
    eventually("all but the last two are removed", async || stored() <= 2).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_an_untrimmed_topic_stays_untrimmed_after_reopening_with_trimming() {
    let directory = tempfile::tempdir().unwrap();
    let opened = || {
        let topics = vec![kafka_runtime::LogTopic::new("letters", 1)];
        Log::open(kafka_runtime::LogConfig::new(directory.path(), topics)).unwrap()
    };
    let letter = || ProducerRecord::new("letters".into(), "k", "letter");
    let log = opened();
    log.add_topics(vec![kafka_runtime::LogTopic::untrimmed("letters")]).unwrap();
    for _ in 0..3 {
        log.send(letter()).await.unwrap();
    }
    let handled = Handled::default();
    let audit = kafka_runtime::Consumer::batches(
        Arc::new(log.source("audit", &["letters"]).unwrap()),
        handled.handler(),
    );
    let running = Running::spawn(audit);
    handled.wait_for(3).await;
    running.stop().await;
    log.send(letter()).await.unwrap();
    assert_eq!(log.read("letters", 0, 0, 9).unwrap().len(), 4);

    // The log must not trim after a restart, even before the topic is opened untrimmed again.
    drop(log);
    let log = opened();
    log.send(letter()).await.unwrap();
    assert_eq!(log.read("letters", 0, 0, 9).unwrap().len(), 5);
}
