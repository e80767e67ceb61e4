use super::*;
use crate::kafka::errors;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

/// A producer with the mock brokers of librdkafka.
fn mocked() -> KafkaProducer {
    mocked_with(KafkaProducerConfig::default().timeout)
}

fn mocked_with(timeout: Duration) -> KafkaProducer {
    mocked_by(KafkaProducerConfig { timeout, ..KafkaProducerConfig::default() })
}

fn mocked_by(config: KafkaProducerConfig) -> KafkaProducer {
    let mut kafka = KafkaConfig::new(vec!["unused:1".into()], "mocked");
    let properties = [("test.mock.num.brokers", "1"), ("allow.auto.create.topics", "true")];
    kafka.properties = properties.map(|(name, value)| (name.into(), value.into())).into();
    KafkaProducer::new(&kafka, config).expect("the settings are valid")
}

fn record(n: usize) -> ProducerRecord {
    ProducerRecord::new("events".into(), "key", n.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_failed_permanently_is_replaced_and_its_records_may_be_sent_again() {
    let producer = mocked();
    producer.send(record(0)).await.expect("the mock takes records");
    {
        let client = producer.shared.client();
        let cluster =
            client.as_ref().and_then(|client| client.producer.client().mock_cluster()).expect("it is mocked");
        let fatal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER; 3];
        cluster.request_errors(RDKafkaApiKey::Produce, &fatal);
    }
    let outcome = producer.send(record(1)).await.expect_err("the broker has lost its place");
    assert!(outcome.is_retryable(), "{outcome:?}");
    let until = Instant::now() + Duration::from_secs(20);
    let position = loop {
        assert!(Instant::now() < until, "the new client must work");
        match producer.send(record(1)).await {
            Ok(position) => break position,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_eq!(position.offset, 0, "a new client has new mocked brokers, so this is one");
    producer.flush(Duration::from_secs(1)).await.expect("nothing is left unanswered");
}

fn set_broker(producer: &KafkaProducer, up: bool) -> Option<()> {
    let client = producer.shared.client();
    let cluster = client.as_ref()?.producer.client().mock_cluster()?;
    let set = if up { cluster.broker_up(1) } else { cluster.broker_down(1) };
    set.ok()
}

/// The supervisor may be blocked by a probe then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_do_not_linger_while_the_state_of_the_brokers_is_unknown() {
    let linger = Duration::from_secs(900);
    let linger_ms = u32::try_from(linger.as_millis()).expect("it fits");
    let producer = mocked_by(KafkaProducerConfig { linger_ms, timeout: 2 * linger, ..Default::default() });
    producer.shared.health.failing("no broker has answered".into());
    let sent = tokio::time::timeout(linger / 60, producer.send(record(0))).await;
    sent.expect("the record must not linger").expect("the mock takes records");
}

/// A client with more records would poll in a busy loop until all are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_one_batch_per_partition_and_the_next_one_follows_in_order() {
    let producer = mocked();
    producer.send(record(0)).await.expect("the mock takes records");
    // The queue learns of the answer only after the callback of the first record.
    while !producer.shared.client().as_ref().is_some_and(|client| client.queues.is_idle()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    set_broker(&producer, false).expect("it is mocked");
    let send = |n| producer.send(record(n));
    let waiting = futures_util::future::join_all((1..10).map(send));
    let brokers_return = async {
        // librdkafka also counts its unread error events, so the number may be larger for a moment.
        let in_client = || producer.shared.client().as_ref().map(|client| client.producer.in_flight_count());
        let until = Instant::now() + Duration::from_secs(2);
        while in_client() != Some(1) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let count = in_client();
        set_broker(&producer, true).expect("it is mocked");
        count
    };
    let (positions, count) = tokio::join!(waiting, brokers_return);
    assert_eq!(count, Some(1));
    let offsets: Vec<_> =
        positions.into_iter().map(|position| position.expect("it is written").offset).collect();
    assert_eq!(offsets, Vec::from_iter(1..10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_when_a_record_times_out_the_records_behind_it_fail_too() {
    let producer = Arc::new(mocked_with(Duration::from_secs(1)));
    producer.send(record(0)).await.expect("the mock takes records");
    let broker = |up| set_broker(&producer, up);
    broker(false).expect("it is mocked");
    let (outcome, first) = tokio::sync::oneshot::channel();
    let same = Arc::clone(&producer);
    let on_delivery = move |result| {
        let behind = same.enqueue(record(3), Box::new(|_| ()));
        drop(outcome.send((result, behind)));
    };
    producer.enqueue(record(1), Box::new(on_delivery)).expect("there is room");
    tokio::time::sleep(Duration::from_millis(700)).await;
    let second = producer.send(record(2));
    let brokers_return = async {
        let first = first.await.expect("it is answered");
        broker(true);
        first
    };
    let ((first, behind), second) = tokio::join!(brokers_return, second);
    assert_eq!(first, Err(ProduceError::TimedOut));
    assert_eq!(second, Err(ProduceError::TimedOut), "it must fail before its own timeout");
    assert!(matches!(behind, Err(ProduceError::Unavailable { .. })), "{behind:?}");
    let until = Instant::now() + Duration::from_secs(20);
    while producer.send(record(1)).await.is_err() {
        assert!(Instant::now() < until, "the new client must work");
    }
}

#[test]
fn lost_connections_do_not_hide_refused_credentials() {
    let health = HealthCell::new(Health::Starting);
    errors::update_health(
        &health,
        &KafkaError::Global(RDKafkaErrorCode::AllBrokersDown),
        "1/1 brokers are down",
    );
    errors::update_health(
        &health,
        &KafkaError::Global(RDKafkaErrorCode::Authentication),
        "sasl: invalid credentials",
    );
    errors::update_health(
        &health,
        &KafkaError::Global(RDKafkaErrorCode::AllBrokersDown),
        "1/1 brokers are down",
    );
    assert_eq!(
        health.get(),
        Health::Failing { reason: "authentication failed: sasl: invalid credentials".into() }
    );
    health.ready();
    assert_eq!(health.get(), Health::Ready);
}
