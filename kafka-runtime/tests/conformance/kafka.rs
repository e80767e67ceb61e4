//! Behaviour of Kafka only: members join, leave and die; brokers are unreachable. Guards P1, P3, P7 and P9.

use crate::backend::{Backend, Kafka, PARTITIONS, brokers};
use crate::support::{
    Handled, Running, config, consumer, eventually, expected, payload, produce, without_repeats,
};
use kafka_runtime::{
    Batch, DeadLetters, Event, HandlerError, Health, KafkaConfig, KafkaProducer, KafkaProducerConfig,
    KafkaSource, KafkaSourceConfig, Outcome, ProduceError, Producer, ProducerRecord, Record, Source,
};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn slowly(handled: &Handled) -> impl kafka_runtime::BatchHandler {
    let handled = handled.clone();
    tower::service_fn(move |batch: Batch| {
        let handled = handled.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            handled.add(&batch);
            Ok::<_, HandlerError>(Outcome::default())
        }
    })
}

fn partitions(handled: &Handled, from: usize) -> BTreeSet<i32> {
    handled.records()[from..].iter().map(|record| record.partition).collect()
}

async fn members_join_and_leave(assignment: &str) {
    let mut backend = Kafka::new().await;
    backend.source_config.assignment = assignment.into();
    // Both members share one list, in the order of handling.
    let (all, late) = (Handled::default(), Handled::default());
    let first = Running::spawn(consumer(&backend, slowly(&all)).config(config()));
    produce(&backend, &KEYS, 50).await;
    all.wait_for(1).await;

    let both = (all.clone(), late.clone());
    let second = Running::spawn(
        consumer(
            &backend,
            tower::service_fn(move |batch: Batch| {
                let (all, late) = both.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    all.add(&batch);
                    late.add(&batch);
                    Ok::<_, HandlerError>(Outcome::default())
                }
            }),
        )
        .config(config()),
    );
    let mut sent = 50;
    eventually("the second member gets partitions", async || {
        send(&backend, sent).await;
        sent += 1;
        late.len() > 0
    })
    .await;
    first.stop().await;
    let before = late.len();
    eventually("the second member gets all partitions", async || {
        send(&backend, sent).await;
        sent += 1;
        partitions(&late, before).len() == partitions(&all, 0).len()
    })
    .await;
    eventually("all records are handled", async || {
        let by_key = all.by_key();
        KEYS.iter().all(|key| without_repeats(by_key[*key].clone()).len() == sent)
    })
    .await;
    second.stop().await;

    for (key, payloads) in all.by_key() {
        assert_eq!(without_repeats(payloads), expected(&key, sent), "key {key}");
    }
    assert_eq!(all.len(), KEYS.len() * sent, "no record must be repeated after a graceful leave");
}

async fn send(backend: &Kafka, n: usize) {
    for key in KEYS {
        let record = ProducerRecord::new(backend.topic(), key, format!("{key}:{n}"));
        backend.producer().send(record).await.expect("acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_and_leave_without_loss_with_range() {
    members_join_and_leave("range").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_join_and_leave_without_loss_with_cooperative_sticky() {
    members_join_and_leave("cooperative-sticky").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_takes_over_from_a_killed_one() {
    let backend = Kafka::new().await;
    produce(&backend, &KEYS, 100).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "kafka::a_member_to_be_killed", "--nocapture"])
        .env("CONFORMANCE_TOPIC", &*backend.topic())
        .env("CONFORMANCE_GROUP", &backend.source_config.group)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let killed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&killed);
    let reading = tokio::task::spawn_blocking(move || {
        for line in output.lines().map_while(Result::ok) {
            seen.lock().unwrap().extend(line.strip_prefix("handled ").map(ToOwned::to_owned));
        }
    });
    eventually("the child handles some", async || killed.lock().unwrap().len() > 100).await;
    child.kill().unwrap();
    child.wait().unwrap();
    reading.await.unwrap();

    let survivor = Handled::default();
    let running = Running::start(&backend, survivor.handler());
    let all = || without_repeats([killed.lock().unwrap().clone(), survivor.payloads()].concat());
    eventually("all records are handled", async || all().len() == KEYS.len() * 100).await;
    running.stop().await;
    // Each key continues in order and without a gap from the point where the survivor takes over.
    for (key, payloads) in survivor.by_key() {
        assert_eq!(payloads, expected(&key, 100)[100 - payloads.len()..], "key {key}");
    }
}

#[tokio::test]
#[ignore = "run in a child process by the test that kills it"]
async fn a_member_to_be_killed() {
    let variable = |name: &str| std::env::var(name).expect("started by the test that kills it");
    let kafka = KafkaConfig::new(brokers(), "killed");
    let (topic, group) = (variable("CONFORMANCE_TOPIC"), variable("CONFORMANCE_GROUP"));
    let producer = Arc::new(KafkaProducer::new(&kafka, KafkaProducerConfig::default()).unwrap());
    let source = Arc::new(KafkaSource::new(KafkaSourceConfig::new(kafka, &group, &[&topic])));
    let handler = tower::service_fn(|batch: Batch| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        batch.records.iter().for_each(|record: &Record| println!("\nhandled {}", payload(record)));
        Ok::<_, HandlerError>(Outcome::default())
    });
    let config = kafka_runtime::ConsumerConfig { max_records: 5, ..config() };
    let dead_letters = DeadLetters::new(producer, format!("{topic}.dead"));
    let consumer =
        kafka_runtime::Consumer::batches(source, handler).dead_letters(dead_letters).config(config);
    consumer.run(Default::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_brokers_records_time_out_and_the_health_is_failing() {
    // No process listens on port 1.
    let kafka = KafkaConfig::new(vec!["127.0.0.1:1".into()], "unreachable");
    let config =
        KafkaProducerConfig { timeout: Duration::from_millis(700), ..KafkaProducerConfig::default() };
    let producer = KafkaProducer::new(&kafka, config).unwrap();
    assert!(!producer.ready(), "it must not be ready before a broker has answered");
    let begin = Instant::now();
    let outcome = producer.send(ProducerRecord::new("t".into(), "k", "v")).await;
    assert_eq!(outcome, Err(ProduceError::TimedOut));
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    eventually("the producer is failing", async || matches!(producer.health(), Health::Failing { .. })).await;

    let source = KafkaSource::new(KafkaSourceConfig::new(kafka, "g", &["t"]));
    source.start(None).await.unwrap();
    eventually("the source is failing", async || matches!(source.health(), Health::Failing { .. })).await;
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_known_before_the_first_record() {
    let producer =
        KafkaProducer::new(&KafkaConfig::new(brokers(), "early"), KafkaProducerConfig::default()).unwrap();
    eventually("the producer is ready", async || producer.ready()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_of_the_producer_is_bounded() {
    let kafka = KafkaConfig::new(vec!["127.0.0.1:1".into()], "unreachable");
    let config = KafkaProducerConfig {
        max_queued: 10,
        timeout: Duration::from_millis(500),
        ..KafkaProducerConfig::default()
    };
    let producer = KafkaProducer::new(&kafka, config).unwrap();
    let record = || ProducerRecord::new("t".into(), "k", "v");
    let answers: Vec<_> = (0..10).map(|_| crate::support::enqueue(&producer, record())).collect();
    let rejected = producer.enqueue(record(), Box::new(|_| panic!("called for a rejected record")));
    assert_eq!(rejected, Err(ProduceError::QueueFull));
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Err(ProduceError::TimedOut));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_member_returns_without_a_rebalance() {
    let backend = Kafka::new().await;
    let member = |name: &str| {
        let instance_id = Some(name.to_owned());
        KafkaSource::new(KafkaSourceConfig { instance_id, ..backend.source_config.clone() })
    };
    let assigned = async |source: &KafkaSource| match source.next().await {
        Ok(Event::Assigned(assigned)) => {
            assigned.into_iter().map(|assigned| assigned.partition).collect::<BTreeSet<_>>()
        }
        other => panic!("{other:?}"),
    };
    let (one, two) = (member("one"), member("two"));
    one.start(None).await.unwrap();
    assert_eq!(assigned(&one).await.len(), PARTITIONS);
    two.start(None).await.unwrap();
    // The first member releases all partitions before the group reassigns them.
    assert!(matches!(one.next().await, Ok(Event::Revoked { .. })));
    let (first, second) = (assigned(&one).await, assigned(&two).await);
    assert_eq!((first.len(), second.len()), (PARTITIONS / 2, PARTITIONS / 2));

    one.close().await;
    let one = member("one");
    one.start(None).await.unwrap();
    assert_eq!(assigned(&one).await, first, "it must get the same partitions");
    let disturbed = tokio::time::timeout(Duration::from_secs(2), two.next()).await;
    assert!(disturbed.is_err(), "the other member must not see a rebalance: {disturbed:?}");
    one.close().await;
    two.close().await;
}

/// The health of a refused member must give the reason as long as the brokers refuse it.
async fn stays_refused(mut config: KafkaSourceConfig, why: &str) {
    config.kafka.properties.push(("statistics.interval.ms".into(), "200".into()));
    let source = KafkaSource::new(config);
    source.start(None).await.unwrap();
    let is_refused = || matches!(source.health(), Health::Failing { reason } if reason.contains(why));
    eventually("the health gives the reason", async || is_refused()).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(is_refused(), "{:?}", source.health());
    }
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_refused_by_its_group_is_not_ready() {
    let backend = Kafka::new().await;
    let config = backend.source_config.clone();
    let session_timeout = Duration::from_secs(3600);
    let too_long = KafkaSourceConfig { session_timeout, poll_interval: session_timeout, ..config.clone() };
    stays_refused(too_long, "session timeout").await;

    let running = Running::start(&backend, Handled::default().handler());
    produce(&backend, &KEYS, 1).await;
    eventually("the group has committed", async || !backend.committed().await.is_empty()).await;
    stays_refused(KafkaSourceConfig { assignment: "cooperative-sticky".into(), ..config }, "protocol").await;
    running.stop().await;
}
