//! Observers, and consumers side by side. Guards P1 and P9.

use crate::backend::{Backend, PARTITIONS};
use crate::support::{Handled, Running, config, consumer, eventually, expected, produce};
use kafka_runtime::{
    Batch, Consumer, Error, HandlerError, Observer, Position, ProduceError, ProducerRecord, TopicPartition,
    observed,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Notifications {
    assigned: Vec<TopicPartition>,
    revoked: Vec<TopicPartition>,
    /// The last committed offset of each partition.
    committed: BTreeMap<i32, i64>,
    delivered: Vec<(String, Position)>,
}

#[derive(Default)]
struct Recorder(Mutex<Notifications>);

impl Observer for Recorder {
    fn assigned(&self, consumer: &str, partitions: &[TopicPartition]) {
        assert_eq!(consumer, "listener");
        self.0.lock().unwrap().assigned.extend_from_slice(partitions);
    }

    fn revoked(&self, _: &str, partitions: &[TopicPartition]) {
        self.0.lock().unwrap().revoked.extend_from_slice(partitions);
    }

    fn committed(&self, _: &str, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        assert!(result.is_ok());
        let offsets = offsets.iter().map(|(of, next)| (of.partition, *next));
        self.0.lock().unwrap().committed.extend(offsets);
    }

    fn delivered(&self, _: &str, key: &[u8], result: &Result<Position, ProduceError>) {
        let key = String::from_utf8(key.to_vec()).unwrap();
        self.0.lock().unwrap().delivered.push((key, result.clone().unwrap()));
    }
}

pub(crate) async fn an_observer_is_notified_of_every_event(backend: impl Backend) {
    let recorder = Arc::new(Recorder::default());
    let observer: Arc<dyn Observer> = Arc::clone(&recorder) as Arc<dyn Observer>;
    let producer = observed(backend.producer(), Arc::clone(&observer));
    let mut sent = Vec::new();
    for n in 0..10 {
        let record = ProducerRecord::new(backend.topic(), "a", format!("a:{n}"));
        sent.push(("a".to_owned(), producer.send(record).await.unwrap()));
    }
    assert_eq!(recorder.0.lock().unwrap().delivered, sent, "each must be observed before its callback");

    let handled = Handled::default();
    let consumer = consumer(&backend, handled.handler()).named("listener").config(config());
    let running = Running::spawn(consumer.observe(observer));
    handled.wait_for(10).await;
    running.stop().await;
    let mut seen = std::mem::take(&mut *recorder.0.lock().unwrap());
    assert_eq!(seen.assigned.len(), PARTITIONS);
    seen.assigned.sort();
    seen.revoked.sort();
    assert_eq!(seen.revoked, seen.assigned, "every partition must be revoked at the end");
    assert_eq!(seen.committed.values().sum::<i64>(), 10, "{:?}", seen.committed);
}

pub(crate) async fn an_observer_is_notified_of_offsets_committed_with_outputs(backend: impl Backend) {
    produce(&backend, &["a", "b", "c"], 10).await;
    let recorder = Arc::new(Recorder::default());
    let out = backend.out_topic();
    let handler = tower::service_fn(move |batch: Batch| {
        let record = |record: &kafka_runtime::Record| {
            ProducerRecord::new(out.clone(), record.key.clone(), record.payload.clone())
        };
        let outputs: Vec<_> = batch.records.iter().map(record).collect();
        std::future::ready(Ok::<_, HandlerError>(outputs))
    });
    let consumer = Consumer::transform(backend.source(), handler).named("listener").config(config());
    let running = Running::spawn(consumer.observe(Arc::clone(&recorder) as Arc<dyn Observer>));
    eventually("all commits are observed", async || {
        recorder.0.lock().unwrap().committed.values().sum::<i64>() == 30
    })
    .await;
    running.stop().await;
    let committed = backend.committed().await;
    assert_eq!(recorder.0.lock().unwrap().committed, committed);
}

pub(crate) async fn consumers_with_different_topics_run_side_by_side(backend: impl Backend) {
    let (topic, second) = (backend.topic(), backend.dead_topic());
    let (both, one) = (Handled::default(), Handled::default());
    let source = backend.source_of("both", &[&topic, &second]);
    let first = Running::spawn(Consumer::batches(source, both.handler()).named("both").config(config()));
    let source = backend.source_of("one", &[&topic]);
    let other = Running::spawn(Consumer::batches(source, one.handler()).named("one").config(config()));
    produce(&backend, &["a"], 20).await;
    for n in 0..20 {
        let record = ProducerRecord::new(Arc::clone(&second), "b", format!("b:{n}"));
        backend.producer().send(record).await.unwrap();
    }
    eventually("both have their records", async || both.len() >= 40 && one.len() >= 20).await;
    // The other consumer continues when one of them ends.
    first.stop().await;
    produce(&backend, &["c"], 5).await;
    one.wait_for(25).await;
    other.stop().await;
    assert_eq!(both.by_key()["a"], expected("a", 20));
    assert_eq!(both.by_key()["b"], expected("b", 20));
    assert_eq!(one.by_key(), [("a".into(), expected("a", 20)), ("c".into(), expected("c", 5))].into());
}
