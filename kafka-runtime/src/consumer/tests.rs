//! What no shipped source can be made to do at a wish: take partitions away, now.

mod letters;
mod panics;
mod spans;

use super::*;
use crate::Health;
use crate::producer::{OnDelivery, ProduceError, Producer};
use crate::record::{Batch, Message, Position, ProducerRecord, Record, TopicPartition};
use crate::source::{AssignedPartition, Event, Offsets, Queue, QueueLimits, Release};
use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Tells events when the test says so, and notes commits.
struct Scripted {
    events: tokio::sync::Mutex<mpsc::Receiver<Event>>,
    commits: Arc<Mutex<Vec<Offsets>>>,
    /// So many commits are refused first.
    refusals: Arc<AtomicUsize>,
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

/// Takes records of up to so many bytes, or nothing at all; what it took.
#[derive(Default)]
struct Graveyard {
    limit: AtomicUsize,
    letters: Mutex<Vec<ProducerRecord>>,
}

#[async_trait]
impl Producer for Graveyard {
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

struct Script {
    graveyard: Arc<Graveyard>,
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

/// A consumer that owns one partition and needs `time` for each batch.
async fn script(time: Duration) -> Script {
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

/// Commits by interval come too late to matter.
fn config() -> ConsumerConfig {
    ConsumerConfig {
        commit_interval: Duration::from_secs(3600),
        finish_timeout: Duration::from_millis(500),
        ..ConsumerConfig::default()
    }
}

/// A consumer that owns one partition and tells `handled` what it handled.
async fn start(handled: mpsc::Receiver<i64>, make: impl FnOnce(Arc<dyn Source>) -> Consumer) -> Script {
    let (events, receiver) = mpsc::channel(4);
    let (commits, refusals) = (Arc::default(), Arc::default());
    let source = Scripted {
        events: tokio::sync::Mutex::new(receiver),
        commits: Arc::clone(&commits),
        refusals: Arc::clone(&refusals),
    };
    let graveyard = Arc::new(Graveyard::default());
    let dead_letters = DeadLetters::new(Arc::clone(&graveyard) as Arc<dyn Producer>, "dead");
    let consumer = make(Arc::new(source)).dead_letters(dead_letters);
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(consumer.run(stop.clone()));
    let queue = Arc::new(Queue::new(QueueLimits { records: 10, bytes: 1000 }, -1, None));
    let assigned = AssignedPartition { partition: partition(), queue: Arc::clone(&queue) };
    events.send(Event::Assigned(vec![assigned])).await.unwrap();
    Script { graveyard, refusals, events, commits, queue, handled, stop, running }
}

impl Script {
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

#[tokio::test(start_paused = true)]
async fn what_is_made_of_a_partition_that_is_gone_is_left_to_the_next_owner() {
    let (done, handled) = mpsc::channel(16);
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&gate);
    let handler = tower::service_fn(move |batch: Batch| {
        let (done, opened) = (done.clone(), Arc::clone(&opened));
        async move {
            done.send(batch.records[0].offset).await.map_err(HandlerError::retry)?;
            opened.notified().await;
            Ok::<_, HandlerError>(Vec::new())
        }
    });
    let retry = RetryPolicy { attempts: std::num::NonZeroU32::new(1), ..RetryPolicy::default() };
    let config = ConsumerConfig { retry, ..config() };
    let mut script = start(handled, |source| Consumer::transform(source, handler).config(config)).await;
    script.feed(1);
    script.feed(2);
    assert_eq!(script.handled.recv().await, Some(1));
    script.queue.close();
    gate.notify_one();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(script.handled.try_recv().is_err(), "neither is tried again alone");
    script.stop().await;
}

#[tokio::test(start_paused = true)]
async fn with_order_per_key_one_record_is_taken_however_low_the_limits_are() {
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |message: Message| {
        let done = done.clone();
        async move { done.send(message.record.offset).await.map_err(HandlerError::retry) }
    });
    let ordering = Ordering::Key { concurrency: NonZeroUsize::MIN };
    let config = ConsumerConfig { ordering, max_records: 0, max_bytes: 0, ..config() };
    let mut script = start(handled, |source| Consumer::records(source, handler).config(config)).await;
    script.feed(1);
    script.feed(2);
    assert_eq!((script.handled.recv().await, script.handled.recv().await), (Some(1), Some(2)));
    script.stop().await;
}

/// A script with order per key, where each record of the key `slow` takes for ever.
async fn keyed_script(observer: Arc<dyn Observer>) -> Script {
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |message: Message| {
        let done = done.clone();
        async move {
            if message.record.key == "slow" {
                std::future::pending::<()>().await;
            }
            done.send(message.record.offset).await.map_err(HandlerError::retry)
        }
    });
    let ordering = Ordering::Key { concurrency: NonZeroUsize::new(4).unwrap() };
    let config = ConsumerConfig { ordering, ..config() };
    start(handled, |source| Consumer::records(source, handler).config(config).observe(observer)).await
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn assigned(&self, _: &str, partitions: &[TopicPartition]) {
        self.0.lock().unwrap().push(format!("assigned {}", partitions[0]));
    }

    fn revoked(&self, _: &str, partitions: &[TopicPartition]) {
        self.0.lock().unwrap().push(format!("revoked {}", partitions[0]));
    }

    fn lost(&self, _: &str, partitions: &[TopicPartition]) {
        self.0.lock().unwrap().push(format!("lost {}", partitions[0]));
    }

    fn committed(&self, _: &str, offsets: &[(TopicPartition, i64)], result: Result<(), &Error>) {
        self.0.lock().unwrap().push(format!("committed {} {}", offsets[0].1, result.is_ok()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_with_order_per_key_commits_what_is_done_without_a_gap() {
    let notes = Arc::new(Notes::default());
    let mut script = keyed_script(Arc::clone(&notes) as Arc<dyn Observer>).await;
    for (offset, key) in [(10, "a"), (11, "slow"), (12, "b"), (13, "slow")] {
        script.feed_key(offset, key);
    }
    assert_eq!(script.handled.recv().await, Some(10));
    assert_eq!(script.handled.recv().await, Some(12));
    let released = script.revoke().await;
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(*script.commits.lock().unwrap(), [vec![(partition(), 11)]], "12 is done, but 11 is not");
    assert_eq!(*notes.0.lock().unwrap(), ["assigned events/7", "committed 11 true", "revoked events/7"]);
    script.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_waits_for_its_hook_is_not_sent_for_a_lost_partition() {
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |message: Message| {
        let done = done.clone();
        async move { done.send(message.record.offset).await.map_err(HandlerError::retry) }
    });
    let config = ConsumerConfig { commit_interval: Duration::from_millis(10), ..config() };
    let hook = || tokio::time::sleep(Duration::from_secs(1)).map(Ok::<_, Error>);
    let consumer = |source| Consumer::records(source, handler).config(config).before_commit(hook);
    let mut script = start(handled, consumer).await;
    script.feed(1);
    assert_eq!(script.handled.recv().await, Some(1));
    tokio::time::sleep(Duration::from_millis(500)).await;
    script.events.send(Event::Lost(vec![partition()])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(script.stop().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_so_many_records_wait_behind_a_key_that_does_not_go_on() {
    let mut script = keyed_script(Arc::new(())).await;
    script.queue = Arc::new(Queue::new(QueueLimits { records: 10_000, bytes: 1 << 20 }, -1, None));
    let (other, queue) = (TopicPartition { partition: 8, ..partition() }, Arc::clone(&script.queue));
    let assigned = AssignedPartition { partition: other, queue };
    script.events.send(Event::Assigned(vec![assigned])).await.unwrap();
    for offset in 0..1_500 {
        script.feed_key(offset, "slow");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = script.queue.next_batch(10_000, 1 << 20).await.unwrap().len();
    assert_eq!(left, 500, "a thousand were taken");
    script.stop().await;
}

/// A consumer that is told to stop while `event` waits for it; what it has committed in the end. One record is done and one
/// is in flight.
async fn stopped_with(event: Event) -> Vec<Offsets> {
    let mut script = script(Duration::from_millis(100)).await;
    script.feed(1);
    assert_eq!(script.handled.recv().await, Some(1));
    script.feed(2);
    tokio::time::sleep(Duration::from_millis(50)).await;
    script.stop.cancel();
    script.events.send(event).await.unwrap();
    script.stop().await
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_while_the_consumer_stops_is_not_committed() {
    assert!(stopped_with(Event::Lost(vec![partition()])).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_while_a_stop_finishes_what_is_in_flight_is_not_committed() {
    let mut script = script(Duration::from_millis(100)).await;
    script.feed(1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    script.stop.cancel();
    tokio::time::sleep(Duration::from_millis(10)).await;
    script.events.send(Event::Lost(vec![partition()])).await.unwrap();
    assert_eq!(script.handled.recv().await, Some(1));
    assert!(script.stop().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_revoked_while_the_consumer_stops_is_finished_and_committed_and_let_go() {
    let (signal, released) = sync_channel(1);
    let revoked = Event::Revoked { partitions: vec![partition()], release: Release::new(signal) };
    assert_eq!(stopped_with(revoked).await, [vec![(partition(), 3)]]);
    assert_eq!(released.try_recv(), Err(TryRecvError::Disconnected));
}

/// Commits as often as it can.
fn eager() -> ConsumerConfig {
    ConsumerConfig { commit_interval: Duration::from_millis(1), ..config() }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_as_a_partition_goes_is_tried_again() {
    let mut script = script(Duration::from_millis(1)).await;
    script.feed(1);
    assert_eq!(script.handled.recv().await, Some(1));
    script.refusals.store(3, SeqCst);
    let released = script.revoke().await;
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(*script.commits.lock().unwrap(), [vec![(partition(), 2)]]);
    script.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_takes_no_longer_than_to_finish_and_to_commit_together() {
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |message: Message| {
        let done = done.clone();
        async move {
            done.send(message.record.offset).await.map_err(HandlerError::retry)?;
            match message.record.offset {
                1 => Ok(()),
                _ => std::future::pending().await,
            }
        }
    });
    let (finish_timeout, commit_timeout) = (Duration::from_secs(5), Duration::from_secs(30));
    let config = ConsumerConfig { finish_timeout, commit_timeout, ..eager() };
    let hook = std::future::pending::<Result<(), Error>>;
    let consumer = |source| Consumer::records(source, handler).config(config).before_commit(hook);
    let mut script = start(handled, consumer).await;
    script.feed(1);
    script.feed(2);
    assert_eq!(script.handled.recv().await, Some(1));
    assert_eq!(script.handled.recv().await, Some(2));
    // The commit of the first one waits for its hook, which has no end; so will the next.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begin = Instant::now();
    let released = script.revoke().await;
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!((34..36).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert!(script.stop().await.is_empty());
}
