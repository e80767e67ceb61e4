//! Consumers on a scripted source, which revokes and loses partitions at a given moment.

mod dead_letters;
mod keys;
mod panics;
mod rebalance;
mod restart;
mod shutdown;
mod spans;

use super::*;
use crate::Health;
use crate::producer::{OnDelivery, ProduceError, Producer};
use crate::record::{Batch, Message, Position, ProducerRecord, Record, TopicPartition};
use crate::source::{AssignedPartition, Event, Offsets, Queue, QueueLimits, Release};
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A source whose events the test sends. It records commits.
struct ScriptedSource {
    events: tokio::sync::Mutex<mpsc::Receiver<Event>>,
    commits: Arc<Mutex<Vec<Offsets>>>,
    /// Number of commits to fail first.
    refusals: Arc<AtomicUsize>,
}

#[async_trait]
impl Source for ScriptedSource {
    async fn start(&self, _: Option<StartOffsets>) -> Result<(), Error> {
        Ok(())
    }

    async fn next(&self) -> Result<Event, Error> {
        self.events.lock().await.recv().await.ok_or(Error::Closed)
    }

    async fn commit(&self, offsets: Offsets) -> Result<(), Error> {
        if self.refusals.load(SeqCst) > 0 {
            self.refusals.fetch_sub(1, SeqCst);
            return Err(Error::TimedOut("commit"));
        }
        self.commits.lock().unwrap().push(offsets);
        Ok(())
    }

    fn transact(
        &self,
        _: &AssignedPartition,
        _: i64,
        _: Vec<ProducerRecord>,
    ) -> BoxFuture<'static, Result<(), Error>> {
        Box::pin(async { Err(Error::Closed) })
    }

    async fn close(&self) {}

    fn health(&self) -> Health {
        Health::Ready
    }
}

/// A producer that accepts records up to a size, or none, and collects them.
#[derive(Default)]
struct DeadLetterSink {
    limit: AtomicUsize,
    letters: Mutex<Vec<ProducerRecord>>,
}

#[async_trait]
impl Producer for DeadLetterSink {
    fn enqueue(&self, letter: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError> {
        match self.limit.load(SeqCst) {
            0 => Err(ProduceError::Closed),
            limit if letter.size() > limit => Err(ProduceError::TooLarge),
            _ => {
                self.letters.lock().unwrap().push(letter);
                on_delivery(Ok(Position { partition: 0, offset: 0 }));
                Ok(())
            }
        }
    }

    async fn flush(&self, _: Duration) -> Result<(), ProduceError> {
        Ok(())
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}

struct TestConsumer {
    sink: Arc<DeadLetterSink>,
    refusals: Arc<AtomicUsize>,
    events: mpsc::Sender<Event>,
    commits: Arc<Mutex<Vec<Offsets>>>,
    queue: Arc<Queue>,
    handled: mpsc::Receiver<i64>,
    stop: CancellationToken,
    running: JoinSet<Result<(), Error>>,
}

fn partition() -> TopicPartition {
    TopicPartition { topic: "events".into(), partition: 7 }
}

/// A consumer that owns one partition and takes `time` for each batch.
async fn slow_consumer(time: Duration) -> TestConsumer {
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |batch: Batch| {
        let done = done.clone();
        async move {
            tokio::time::sleep(time).await;
            done.send(batch.records[0].offset).await.map_err(HandlerError::retry)?;
            Ok::<_, HandlerError>(Outcome::default())
        }
    });
    let config = ConsumerConfig { max_records: 1, ..config() };
    start(handled, |source| Consumer::batches(source, handler).config(config)).await
}

/// With a commit interval that never elapses.
fn config() -> ConsumerConfig {
    ConsumerConfig {
        commit_interval: Duration::from_secs(3600),
        finish_timeout: Duration::from_millis(500),
        ..ConsumerConfig::default()
    }
}

/// Starts a consumer that owns one partition. Its handler sends the offsets of handled records to `handled`.
async fn start(handled: mpsc::Receiver<i64>, make: impl FnOnce(Arc<dyn Source>) -> Consumer) -> TestConsumer {
    let (events, receiver) = mpsc::channel(4);
    let (commits, refusals) = (Arc::default(), Arc::default());
    let source = ScriptedSource {
        events: tokio::sync::Mutex::new(receiver),
        commits: Arc::clone(&commits),
        refusals: Arc::clone(&refusals),
    };
    let sink = Arc::new(DeadLetterSink::default());
    let dead_letters = DeadLetters::new(Arc::clone(&sink) as Arc<dyn Producer>, "dead");
    let consumer = make(Arc::new(source)).dead_letters(dead_letters);
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(consumer.run(stop.clone()));
    let queue = Arc::new(Queue::new(QueueLimits { records: 10, bytes: 1000 }, -1, None));
    let assigned = AssignedPartition { partition: partition(), queue: Arc::clone(&queue) };
    events.send(Event::Assigned(vec![assigned])).await.unwrap();
    TestConsumer { sink, refusals, events, commits, queue, handled, stop, running }
}

impl TestConsumer {
    fn feed(&self, offset: i64) {
        self.feed_key(offset, "");
    }

    fn feed_key(&self, offset: i64, key: &'static str) {
        let TopicPartition { topic, partition } = partition();
        let (key, payload) = (key.into(), Default::default());
        let record = Record { topic, partition, offset, key, payload, headers: vec![], timestamp_ms: 0 };
        self.queue.push(vec![record]);
    }

    async fn revoke(&self) -> Receiver<()> {
        let (signal, released) = sync_channel(1);
        let release = Release::new(signal);
        self.events.send(Event::Revoked { partitions: vec![partition()], release }).await.unwrap();
        released
    }

    async fn stop(mut self) -> Vec<Offsets> {
        self.stop.cancel();
        self.running.join_next().await.expect("it runs").expect("it does not panic").expect("it ends well");
        self.commits.lock().unwrap().clone()
    }
}

/// With a minimal commit interval.
fn eager() -> ConsumerConfig {
    ConsumerConfig { commit_interval: Duration::from_millis(1), ..config() }
}
