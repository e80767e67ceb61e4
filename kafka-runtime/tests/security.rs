//! Authentication and TLS on real brokers, with valid and with invalid credentials. The brokers come from
//! `GODWIT_TEST_KAFKA_SASL`, `GODWIT_TEST_KAFKA_TLS` and `GODWIT_TEST_KAFKA_TLS_CA`.
#![expect(clippy::unwrap_used, reason = "test code, including helpers that are not marked as tests")]

use kafka_runtime::topics::{TopicSpec, ensure};
use kafka_runtime::{
    Address, Error, Event, HandlerError, Health, KafkaProducer, KafkaSource, Message, Producer,
    ProducerRecord, Runtime, Source,
};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(20);
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run tests/run, or scripts/servers up and env"))
}

fn sasl(mechanism: &str, password: &str) -> Address {
    let brokers = variable("GODWIT_TEST_KAFKA_SASL");
    address(&format!("kafka://godwit:{password}@{brokers}"), mechanism, "")
}

fn tls(mechanism: &str, password: &str, ca: &str) -> Address {
    let brokers = variable("GODWIT_TEST_KAFKA_TLS");
    address(&format!("kafka://godwit:{password}@{brokers}"), mechanism, &format!("&tls.ca={ca}"))
}

fn address(place: &str, mechanism: &str, more: &str) -> Address {
    let topic = format!("test-{}", uuid::Uuid::new_v4().simple());
    let text = format!("{place}?topics={topic}&group={topic}&sasl.mechanism={mechanism}{more}");
    text.parse().unwrap()
}

/// Creates a topic, writes a record and reads it.
async fn works(address: &Address) {
    let kafka = address.kafka_config().unwrap().unwrap();
    let topic = address.topics()[0].as_str();
    ensure(&kafka, &[TopicSpec::new(topic, 1, 1)], DEADLINE).await.unwrap();
    let producer = KafkaProducer::new(&kafka, address.producer_config()).unwrap();
    producer.send(ProducerRecord::new(topic.into(), "key", "payload")).await.unwrap();
    let source = KafkaSource::new(address.source_config().unwrap().unwrap());
    source.start(None).await.unwrap();
    let Event::Assigned(assigned) = source.next().await.unwrap() else { panic!("not assigned") };
    let batch = tokio::time::timeout(DEADLINE, assigned[0].queue.next_batch(1, 1 << 20)).await;
    assert_eq!(&batch.expect("the record must be read").unwrap()[0].payload[..], b"payload");
    assert_eq!(source.health(), Health::Ready);
    source.close().await;
}

/// Checks that a start fails within seconds, and that the health of running clients fails, too. `why` is a part
/// of the reason.
async fn is_refused(address: &Address, why: &str) {
    let kafka = address.kafka_config().unwrap().unwrap();
    let begin = Instant::now();
    let refused =
        ensure(&kafka, &[TopicSpec::existing("any")], DEADLINE).await.expect_err("it must be refused");
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains(why) && !text.contains("sesame"), "{text}");

    let handler = tower::service_fn(|_: Message| async { Ok::<_, HandlerError>(()) });
    let runtime = Runtime::new().records("refused", address, handler).unwrap();
    let refused = runtime.run(CancellationToken::new()).await.expect_err("it must not start");
    assert!(refused.to_string().contains(why), "{refused}");

    let producer = KafkaProducer::new(&kafka, address.producer_config()).unwrap();
    let source = KafkaSource::new(address.source_config().unwrap().unwrap());
    source.start(None).await.unwrap();
    for health in [&|| producer.health(), &|| source.health()] as [&dyn Fn() -> Health; 2] {
        let begin = Instant::now();
        while !matches!(health(), Health::Failing { reason } if reason.contains(why)) {
            assert!(begin.elapsed() < Duration::from_secs(10), "{why}, but {:?}", health());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_password_is_accepted() {
    for mechanism in MECHANISMS {
        works(&sasl(mechanism, "godwit")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_a_clear_error() {
    for mechanism in MECHANISMS {
        is_refused(&sasl(mechanism, "sesame"), "authentication failed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_are_reached_over_tls() {
    let ca = variable("GODWIT_TEST_KAFKA_TLS_CA");
    for mechanism in MECHANISMS {
        works(&tls(mechanism, "godwit", &ca)).await;
    }
    is_refused(&tls("SCRAM-SHA-512", "sesame", &ca), "authentication failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_an_unknown_ca_is_refused() {
    is_refused(&tls("PLAIN", "sesame", "system"), "the certificate was refused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_ca_file_is_a_clear_error() {
    let kafka = tls("PLAIN", "sesame", "/nowhere/ca.pem").kafka_config().unwrap().unwrap();
    let error =
        ensure(&kafka, &[TopicSpec::existing("any")], DEADLINE).await.expect_err("the file does not exist");
    let cause = std::error::Error::source(&error).expect("the error must have a cause").to_string();
    assert!(cause.contains("ssl.ca.location"), "{cause}");
}
