//! What no shipped source can be made to do at a wish: take partitions away, now.

use super::*;
use crate::Health;
use crate::producer::{OnDelivery, ProduceError, Producer};
use crate::record::{Batch, ProducerRecord, Record, TopicPartition};
use crate::source::{AssignedPartition, Event, Offsets, Queue, QueueLimits, Release};
use async_trait::async_trait;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Tells events when the test says so, and notes commits.
struct Scripted {
    events: tokio::sync::Mutex<mpsc::Receiver<Event>>,
    commits: Arc<Mutex<Vec<Offsets>>>,
}

#[async_trait]
impl Source for Scripted {
    async fn start(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn next(&self) -> Result<Event, Error> {
        self.events.lock().await.recv().await.ok_or(Error::Closed)
    }

    async fn commit(&self, offsets: Offsets) -> Result<(), Error> {
        self.commits.lock().unwrap().push(offsets);
        Ok(())
    }

    async fn close(&self) {}

    fn health(&self) -> Health {
        Health::Ready
    }
}

struct NoProducer;

#[async_trait]
impl Producer for NoProducer {
    fn enqueue(&self, _: ProducerRecord, _: OnDelivery) -> Result<(), ProduceError> {
        Err(ProduceError::Closed)
    }

    async fn flush(&self, _: Duration) -> Result<(), ProduceError> {
        Ok(())
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}

struct Script {
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

/// A consumer that owns one partition and needs `time` for each batch. Commits by interval come too late to matter.
async fn script(time: Duration) -> Script {
    let (events, receiver) = mpsc::channel(4);
    let commits = Arc::default();
    let source = Scripted { events: tokio::sync::Mutex::new(receiver), commits: Arc::clone(&commits) };
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |batch: Batch| {
        let done = done.clone();
        async move {
            tokio::time::sleep(time).await;
            done.send(batch.records[0].offset).await.map_err(HandlerError::retry)?;
            Ok::<_, HandlerError>(Outcome::default())
        }
    });
    let config = ConsumerConfig {
        max_records: 1,
        commit_interval: Duration::from_secs(3600),
        finish_timeout: Duration::from_millis(500),
        ..ConsumerConfig::default()
    };
    let dead_letters = DeadLetters::new(Arc::new(NoProducer), "dead");
    let consumer = Consumer::batches(Arc::new(source), handler).dead_letters(dead_letters).config(config);
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(consumer.run(stop.clone()));
    let queue = Arc::new(Queue::new(QueueLimits { records: 10, bytes: 1000 }, -1, None));
    let assigned = AssignedPartition { partition: partition(), queue: Arc::clone(&queue) };
    events.send(Event::Assigned(vec![assigned])).await.unwrap();
    Script { events, commits, queue, handled, stop, running }
}

impl Script {
    fn feed(&self, offset: i64) {
        let TopicPartition { topic, partition } = partition();
        let (key, payload) = (Default::default(), Default::default());
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

#[tokio::test]
async fn a_revoked_partition_is_finished_and_committed_before_it_is_let_go() {
    let mut script = script(Duration::from_millis(100)).await;
    script.feed(41);
    script.feed(42);
    assert_eq!(script.handled.recv().await, Some(41));
    // 42 is in flight now, 43 has not begun.
    script.feed(43);
    let released = script.revoke().await;
    assert_eq!(released.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(script.handled.recv().await, Some(42));
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(*script.commits.lock().unwrap(), [vec![(partition(), 43)]], "committed when it was let go");
    assert_eq!(script.stop().await.len(), 1, "nothing more of it is committed");
}

#[tokio::test]
async fn a_revocation_does_not_wait_longer_than_it_may() {
    let script = script(Duration::from_secs(3600)).await;
    script.feed(1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begin = Instant::now();
    let released = script.revoke().await;
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!((500..5_000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    assert!(script.stop().await.is_empty(), "what was not finished is not committed");
}

#[tokio::test]
async fn a_lost_partition_is_neither_finished_nor_committed() {
    let mut script = script(Duration::from_millis(100)).await;
    script.feed(1);
    assert_eq!(script.handled.recv().await, Some(1));
    script.feed(2);
    tokio::time::sleep(Duration::from_millis(50)).await;
    script.events.send(Event::Lost(vec![partition()])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(script.handled.try_recv().is_err(), "2 was in flight, and abandoned");
    assert!(script.stop().await.is_empty(), "not even what had been done is committed");
}
