//! Topics of Kafka are created as specified, or refused. Guards P1.

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
async fn a_missing_topic_is_refused_and_not_created_by_the_check() {
    let missing = TopicSpec::existing(&unique());
    for _ in 0..2 {
        let reason = reason(ensure(&kafka(), std::slice::from_ref(&missing), DEADLINE).await);
        assert!(reason.contains("it does not exist"), "{reason}");
    }
    let made = TopicSpec { partitions: Some(2), ..missing.clone() };
    ensure(&kafka(), &[made], DEADLINE).await.expect("created, with the brokers' number of replicas");
    ensure(&kafka(), &[missing], DEADLINE).await.expect("the topic exists now");
}

#[tokio::test]
async fn too_few_replicas_are_refused_unless_allowed() {
    let name = unique();
    ensure(&kafka(), &[TopicSpec::new(&name, 1, 1)], DEADLINE).await.expect("created with one replica");
    let mut spec = TopicSpec::new(&name, 1, 3);
    let reason = reason(ensure(&kafka(), std::slice::from_ref(&spec), DEADLINE).await);
    assert!(reason.contains("it has 1 replicas, but `replication` requires 3"), "{reason}");
    spec.allow_fewer_replicas = true;
    ensure(&kafka(), &[spec], DEADLINE).await.expect("fewer replicas are allowed");
}

#[tokio::test]
async fn unreachable_brokers_are_an_error_within_the_deadline() {
    let begin = Instant::now();
    // No process listens on port 1.
    let nowhere = KafkaConfig::new(vec!["127.0.0.1:1".into()], "topics");
    let result = ensure(&nowhere, &[TopicSpec::existing("t")], Duration::from_secs(2)).await;
    let text = result.expect_err("no broker answers").to_string();
    assert!(
        text.contains("no broker answers at 127.0.0.1:1: ") && text.contains("Connection refused"),
        "{text}"
    );
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_unresolvable_broker_is_named_in_the_error() {
    let nowhere = KafkaConfig::new(vec!["broker.invalid:9092".into()], "topics");
    let error = ensure(&nowhere, &[], Duration::from_secs(2)).await.expect_err("no broker answers");
    assert!(error.to_string().contains("Failed to resolve 'broker.invalid:9092'"), "{error}");
}

#[test]
fn a_cancelled_check_does_not_delay_the_shutdown() {
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
