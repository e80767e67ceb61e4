//! Kafka's topics are made as they were asked for, or refused. Guards P1.

use crate::backend::brokers;
use kafka_runtime::topics::{TopicSpec, ensure};
use kafka_runtime::{Error, KafkaConfig};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);

fn kafka() -> KafkaConfig {
    KafkaConfig::new(brokers(), "topics")
}

fn unique() -> String {
    format!("test-{}", uuid::Uuid::new_v4().simple())
}

fn reason(result: Result<(), Error>) -> String {
    match result {
        Err(Error::Topic { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_topic_is_refused_and_not_made_by_asking() {
    let missing = TopicSpec::existing(&unique());
    for _ in 0..2 {
        let reason = reason(ensure(&kafka(), std::slice::from_ref(&missing), DEADLINE).await);
        assert!(reason.contains("it does not exist"), "{reason}");
    }
    let made = TopicSpec { partitions: Some(2), ..missing.clone() };
    ensure(&kafka(), &[made], DEADLINE).await.expect("it is made, with the replicas that the brokers choose");
    ensure(&kafka(), &[missing], DEADLINE).await.expect("it is there now");
}

#[tokio::test]
async fn fewer_replicas_than_asked_for_are_refused_unless_that_is_allowed() {
    let name = unique();
    ensure(&kafka(), &[TopicSpec::new(&name, 1, 1)], DEADLINE).await.expect("one replica was asked for");
    let mut spec = TopicSpec::new(&name, 1, 3);
    let reason = reason(ensure(&kafka(), std::slice::from_ref(&spec), DEADLINE).await);
    assert!(reason.contains("it has 1 replicas, and `replication` asks for 3"), "{reason}");
    spec.allow_fewer_replicas = true;
    ensure(&kafka(), &[spec], DEADLINE).await.expect("it was allowed");
}

#[tokio::test]
async fn brokers_that_do_not_answer_are_an_error_in_time() {
    let begin = Instant::now();
    // Nothing listens on port 1.
    let nowhere = KafkaConfig::new(vec!["127.0.0.1:1".into()], "topics");
    let result = ensure(&nowhere, &[TopicSpec::existing("t")], Duration::from_secs(2)).await;
    let text = result.expect_err("nobody answers").to_string();
    assert!(
        text.contains("no broker answers at 127.0.0.1:1: ") && text.contains("Connection refused"),
        "{text}"
    );
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_broker_without_an_address_is_an_error_that_says_so() {
    let nowhere = KafkaConfig::new(vec!["broker.invalid:9092".into()], "topics");
    let error = ensure(&nowhere, &[], Duration::from_secs(2)).await.expect_err("nobody answers");
    assert!(error.to_string().contains("Failed to resolve 'broker.invalid:9092'"), "{error}");
}

#[test]
fn whoever_stops_waiting_for_brokers_does_not_wait_for_the_check() {
    let nowhere = KafkaConfig::new(vec!["127.0.0.1:1".into()], "topics");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let check = ensure(&nowhere, &[], Duration::from_secs(20));
        assert!(tokio::time::timeout(Duration::from_millis(200), check).await.is_err());
    });
    let begin = Instant::now();
    drop(runtime);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}
