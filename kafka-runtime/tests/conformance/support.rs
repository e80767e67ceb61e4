//! Helpers of the tests.

use crate::backend::Backend;
use kafka_runtime::{
    Backoff, Batch, BatchHandler, Consumer, ConsumerConfig, DeadLetters, Error, HandlerError, Message,
    Outcome, Position, ProducerRecord, Record, RecordHandler, RetryPolicy,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Waits until `holds`, or fails after 30 s.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(30), wait).await.is_ok(),
        "timed out waiting for: {what}"
    );
}

/// Quick retries and frequent commits.
pub(crate) fn config() -> ConsumerConfig {
    let backoff =
        Backoff { first: Duration::from_millis(5), max: Duration::from_millis(20), ..Backoff::default() };
    ConsumerConfig {
        retry: RetryPolicy { backoff, ..RetryPolicy::default() },
        commit_interval: Duration::from_millis(50),
        ..ConsumerConfig::default()
    }
}

/// A consumer that runs in the background.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinSet<Result<(), Error>>,
}

impl Running {
    pub(crate) fn start(backend: &impl Backend, handler: impl BatchHandler) -> Self {
        Self::spawn(consumer(backend, handler).config(config()))
    }

    pub(crate) fn spawn(consumer: Consumer) -> Self {
        let (stop, mut task) = (CancellationToken::new(), JoinSet::new());
        task.spawn(consumer.run(stop.clone()));
        Self { stop, task }
    }

    /// Stops the consumer gracefully.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended =
            tokio::time::timeout(Duration::from_secs(20), self.task.join_next()).await.expect("it must stop");
        ended.expect("it was running").expect("it must not panic").expect("it must end without an error");
    }

    /// Kills the consumer: it finishes and commits nothing.
    pub(crate) async fn kill(mut self) {
        self.task.shutdown().await;
    }
}

pub(crate) fn consumer(backend: &impl Backend, handler: impl BatchHandler) -> Consumer {
    let dead_letters = DeadLetters::new(backend.producer(), backend.dead_topic());
    Consumer::batches(backend.source(), handler).dead_letters(dead_letters)
}

/// A consumer with a handler of single records.
pub(crate) fn records(backend: &impl Backend, handler: impl RecordHandler) -> Consumer {
    let dead_letters = DeadLetters::new(backend.producer(), backend.dead_topic());
    Consumer::records(backend.source(), handler).dead_letters(dead_letters)
}

/// The handled records, in the order of handling.
#[derive(Clone, Default)]
pub(crate) struct Handled(Arc<Mutex<Vec<Record>>>);

impl Handled {
    pub(crate) fn add(&self, batch: &Batch) {
        self.0.lock().unwrap().extend(batch.records.iter().cloned());
    }

    pub(crate) fn add_one(&self, record: Record) {
        self.0.lock().unwrap().push(record);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn payloads(&self) -> Vec<String> {
        self.records().iter().map(payload).collect()
    }

    /// Payloads by key.
    pub(crate) fn by_key(&self) -> BTreeMap<String, Vec<String>> {
        let mut keys = BTreeMap::<String, Vec<String>>::new();
        for record in self.records() {
            keys.entry(String::from_utf8(record.key.to_vec()).unwrap()).or_default().push(payload(&record));
        }
        keys
    }

    /// A handler that succeeds.
    pub(crate) fn handler(&self) -> impl BatchHandler {
        self.handler_with(|_| Ok(Outcome::default()))
    }

    /// A handler that returns the result of `decide`. If that is `Ok`, the batch counts as handled.
    pub(crate) fn handler_with(
        &self,
        decide: impl Fn(&Batch) -> Result<Outcome, HandlerError> + Clone + Send + Sync + 'static,
    ) -> impl BatchHandler {
        let handled = self.clone();
        tower::service_fn(move |batch: Batch| {
            let (handled, decide) = (handled.clone(), decide.clone());
            async move {
                let outcome = decide(&batch)?;
                handled.add(&batch);
                Ok(outcome)
            }
        })
    }

    /// Like [`handler_with`](Self::handler_with), for single records.
    pub(crate) fn record_handler_with(
        &self,
        decide: impl Fn(&Message) -> Result<(), HandlerError> + Clone + Send + Sync + 'static,
    ) -> impl RecordHandler {
        let handled = self.clone();
        tower::service_fn(move |message: Message| {
            let result = decide(&message).map(|()| handled.add_one(message.record));
            async { result }
        })
    }

    pub(crate) async fn wait_for(&self, count: usize) {
        eventually(&format!("{count} records handled"), async || self.len() >= count).await;
    }
}

pub(crate) fn payload(record: &Record) -> String {
    String::from_utf8(record.payload.to_vec()).unwrap()
}

/// Sends `count` records for each key, `KEY:0`, `KEY:1`, …, alternating between the keys. Returns when all are
/// acknowledged.
pub(crate) async fn produce(backend: &impl Backend, keys: &[&str], count: usize) -> Vec<Position> {
    let producer = backend.producer();
    let mut waiting = Vec::new();
    for n in 0..count {
        for key in keys {
            let record = ProducerRecord::new(backend.topic(), (*key).to_owned(), format!("{key}:{n}"));
            waiting.push(enqueue(producer.as_ref(), record));
        }
    }
    let mut positions = Vec::new();
    for waiter in waiting {
        positions.push(
            waiter.await.expect("the record must be answered").expect("the record must be acknowledged"),
        );
    }
    positions
}

pub(crate) type Answer = tokio::sync::oneshot::Receiver<Result<Position, kafka_runtime::ProduceError>>;

pub(crate) fn enqueue(producer: &dyn kafka_runtime::Producer, record: ProducerRecord) -> Answer {
    let (answer, answered) = tokio::sync::oneshot::channel();
    producer
        .enqueue(record, Box::new(move |result| drop(answer.send(result))))
        .expect("it must accept the record");
    answered
}

/// `KEY:0` … `KEY:count-1`.
pub(crate) fn expected(key: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{key}:{n}")).collect()
}

/// The value of a header as text. The header must exist.
pub(crate) fn header(record: &Record, name: &str) -> String {
    let (_, value) = record.headers.iter().find(|(header, _)| header == name).expect("the header is there");
    String::from_utf8(value.to_vec()).unwrap()
}

/// Removes repeated payloads and keeps the first of each.
pub(crate) fn without_repeats(payloads: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    payloads.into_iter().filter(|payload| seen.insert(payload.clone())).collect()
}
