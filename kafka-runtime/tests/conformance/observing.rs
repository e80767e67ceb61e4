//! Who hears of what, and consumers side by side. Guards P1 and P9.

use crate::backend::{Backend, PARTITIONS};
use crate::support::{Handled, Running, config, consumer, eventually, expected, produce};
use kafka_runtime::{
    Batch, Consumer, Error, HandlerError, Observer, Position, ProduceError, ProducerRecord, TopicPartition,
    observed,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct Heard {
    assigned: Vec<TopicPartition>,
    revoked: Vec<TopicPartition>,
    /// The last of each partition.
    committed: BTreeMap<i32, i64>,
    delivered: Vec<(String, Position)>,
}

#[derive(Default)]
struct Ears(Mutex<Heard>);

impl Observer for Ears {
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

pub(crate) async fn an_observer_hears_of_everything(backend: impl Backend) {
    let ears = Arc::new(Ears::default());
    let observer: Arc<dyn Observer> = Arc::clone(&ears) as Arc<dyn Observer>;
    let producer = observed(backend.producer(), Arc::clone(&observer));
    let mut sent = Vec::new();
    for n in 0..10 {
        let record = ProducerRecord::new(backend.topic(), "a", format!("a:{n}"));
        sent.push(("a".to_owned(), producer.send(record).await.unwrap()));
    }
    assert_eq!(ears.0.lock().unwrap().delivered, sent, "before the callback of each record");

    let handled = Handled::default();
    let consumer = consumer(&backend, handled.handler()).named("listener").config(config());
    let running = Running::of(consumer.observe(observer));
    handled.reach(10).await;
    running.stop().await;
    let mut heard = std::mem::take(&mut *ears.0.lock().unwrap());
    assert_eq!(heard.assigned.len(), PARTITIONS);
    heard.assigned.sort();
    heard.revoked.sort();
    assert_eq!(heard.revoked, heard.assigned, "what was given up at the end");
    assert_eq!(heard.committed.values().sum::<i64>(), 10, "{:?}", heard.committed);
}

pub(crate) async fn an_observer_hears_of_offsets_that_are_written_with_outputs(backend: impl Backend) {
    produce(&backend, &["a", "b", "c"], 10).await;
    let ears = Arc::new(Ears::default());
    let out = backend.out_topic();
    let handler = tower::service_fn(move |batch: Batch| {
        let record = |record: &kafka_runtime::Record| {
            ProducerRecord::new(out.clone(), record.key.clone(), record.payload.clone())
        };
        let outputs: Vec<_> = batch.records.iter().map(record).collect();
        std::future::ready(Ok::<_, HandlerError>(outputs))
    });
    let consumer = Consumer::transform(backend.source(), handler).named("listener").config(config());
    let running = Running::of(consumer.observe(Arc::clone(&ears) as Arc<dyn Observer>));
    eventually("all is told", async || ears.0.lock().unwrap().committed.values().sum::<i64>() == 30).await;
    running.stop().await;
    let committed = backend.committed().await;
    assert_eq!(ears.0.lock().unwrap().committed, committed);
}

pub(crate) async fn consumers_with_topics_of_their_own_run_side_by_side(backend: impl Backend) {
    let (topic, second) = (backend.topic(), backend.dead_topic());
    let (both, one) = (Handled::default(), Handled::default());
    let source = backend.source_of("both", &[&topic, &second]);
    let first = Running::of(Consumer::batches(source, both.handler()).named("both").config(config()));
    let source = backend.source_of("one", &[&topic]);
    let other = Running::of(Consumer::batches(source, one.handler()).named("one").config(config()));
    produce(&backend, &["a"], 20).await;
    for n in 0..20 {
        let record = ProducerRecord::new(Arc::clone(&second), "b", format!("b:{n}"));
        backend.producer().send(record).await.unwrap();
    }
    eventually("each has what it reads", async || both.len() >= 40 && one.len() >= 20).await;
    // One of them ends; the other does not mind.
    first.stop().await;
    produce(&backend, &["c"], 5).await;
    one.reach(25).await;
    other.stop().await;
    assert_eq!(both.by_key()["a"], expected("a", 20));
    assert_eq!(both.by_key()["b"], expected("b", 20));
    assert_eq!(one.by_key(), [("a".into(), expected("a", 20)), ("c".into(), expected("c", 5))].into());
}
