//! The program, with real Kafka and Redis.

use crate::world::{World, lines, message, record};
use abi::{
    config::{self, Config, Secret},
    record::key,
};
use bytes::Bytes;
use cache::{Counters as _, RedisCache};
use kafka_runtime::{
    Producer as _, ProducerRecord,
    kafka::{KafkaConfig, KafkaProducer, KafkaProducerConfig},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use utils::Shutdown;

fn server(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run tests/run, or set it"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p6_a_record_after_a_poison_record_is_stored_counted_and_pushed() {
    let world = World::new();
    let ([db, push], _servers) = world.serve().await;
    let name = format!("test-consumer-{}", uuid::Uuid::new_v4().simple());
    let config = Config {
        consumer: config::Consumer {
            admin_listen: "127.0.0.1:0".into(),
            grpc_listen: "127.0.0.1:0".into(),
            ..config::Consumer::default()
        },
        discovery: config::Discovery { db: vec![db], pusher: vec![push], ..config::Discovery::default() },
        kafka: config::Kafka {
            brokers: vec![server("GODWIT_TEST_KAFKA")],
            topic: name.clone(),
            group: name.clone(),
            partitions: 2,
            ..config::Kafka::default()
        },
        redis: config::Redis {
            url: Secret::new(server("GODWIT_TEST_REDIS")),
            prefix: name.clone(),
            ..config::Redis::default()
        },
        ..Config::default()
    };
    let shutdown = Shutdown::new(Duration::from_secs(20));
    consumer::build(&config).await.unwrap().run(&shutdown).await.unwrap();
    shutdown.readiness().ready().await;

    let kafka = KafkaConfig::new(config.kafka.brokers.clone(), "test");
    let producer = KafkaProducer::new(&kafka, KafkaProducerConfig::default()).unwrap();
    let topic: Arc<str> = name.as_str().into();
    let record_key = key("app", "d:alice:bob");
    let payloads =
        [Bytes::from_static(b"no entry at all"), record(&message("d:alice:bob", "alice", "one")).payload];
    for payload in payloads {
        let record = ProducerRecord::new(Arc::clone(&topic), record_key.clone(), payload);
        producer.enqueue(record, Box::new(|delivered| assert!(delivered.is_ok()))).unwrap();
    }
    producer.flush(Duration::from_secs(10)).await.unwrap();

    let began = Instant::now();
    let mut pushed = Vec::new();
    while pushed.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing was pushed");
        tokio::time::sleep(Duration::from_millis(10)).await;
        pushed.extend(world.pushes().iter().flat_map(lines));
    }
    assert_eq!(pushed, ["alice 1 +1 one#1", "bob 1 +1 one#1"]);
    assert_eq!(world.history("bob", "d:alice:bob").await.len(), 1);
    let cache = RedisCache::new(&config.redis).unwrap();
    assert_eq!(cache.changes("app", "bob", abi::v1::ReceiverSeq::default()).await.unwrap().now.seq, 1);
    shutdown.drain().begin("test");
    shutdown.run().await;
    assert!(!shutdown.tasks().failed());
}
