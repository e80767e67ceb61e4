//! Producers: callbacks, flush, rejections. Guards P1 and P7.

use crate::backend::Backend;
use crate::support::{enqueue, eventually};
use kafka_runtime::{Position, ProduceError, ProducerRecord};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Answers = Arc<Mutex<Vec<(usize, Result<Position, ProduceError>)>>>;

fn enqueue_counted(backend: &impl Backend, count: usize) -> (Answers, usize) {
    let (answers, producer) = (Answers::default(), backend.producer());
    let mut taken = 0;
    for n in 0..count {
        let answers = Arc::clone(&answers);
        let record = ProducerRecord::new(backend.topic(), "a", n.to_string());
        let on_delivery = Box::new(move |result| answers.lock().unwrap().push((n, result)));
        taken += usize::from(producer.enqueue(record, on_delivery).is_ok());
    }
    (answers, taken)
}

pub(crate) async fn callbacks_are_called_exactly_once_in_order(backend: impl Backend) {
    let (answers, taken) = enqueue_counted(&backend, 3000);
    assert_eq!(taken, 3000);
    backend.producer().flush(Duration::from_secs(20)).await.unwrap();
    let answers = answers.lock().unwrap();
    let order: Vec<usize> = answers.iter().map(|(n, _)| *n).collect();
    assert_eq!(order, (0..3000).collect::<Vec<_>>());
    let offsets: Vec<i64> = answers.iter().map(|(_, result)| result.as_ref().unwrap().offset).collect();
    assert_eq!(offsets, (0..3000).collect::<Vec<_>>(), "a key must keep the order of the calls");
}

pub(crate) async fn a_dropped_producer_answers_every_record(backend: impl Backend) {
    let (answers, taken) = enqueue_counted(&backend, 1000);
    let producer = backend.own_producer();
    assert!(Arc::strong_count(&producer) == 1, "it must be the last handle");
    tokio::task::spawn_blocking(move || drop(producer)).await.unwrap();
    eventually("all records are answered", async || answers.lock().unwrap().len() >= taken).await;
    let mut numbers: Vec<usize> = answers.lock().unwrap().iter().map(|(n, _)| *n).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..taken).collect::<Vec<_>>(), "each must be answered once");
}

pub(crate) async fn flush_waits_for_every_answer(backend: impl Backend) {
    let producer = backend.producer();
    producer.flush(Duration::from_secs(1)).await.expect("nothing is in flight");
    let (answers, taken) = enqueue_counted(&backend, 500);
    producer.flush(Duration::from_secs(20)).await.unwrap();
    assert_eq!(answers.lock().unwrap().len(), taken);
    assert!(producer.ready());
}

pub(crate) async fn an_oversized_record_is_rejected(backend: impl Backend) {
    let producer = backend.producer();
    let record = ProducerRecord::new(backend.topic(), "a", vec![0; 3 << 20]);
    assert_eq!(producer.send(record).await, Err(ProduceError::TooLarge));
    let small = ProducerRecord::new(backend.topic(), "a", "small");
    assert!(enqueue(producer.as_ref(), small).await.unwrap().is_ok(), "other records must be accepted");
}
