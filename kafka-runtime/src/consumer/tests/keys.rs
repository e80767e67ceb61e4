//! Order per key.

use super::*;
use std::num::NonZeroUsize;

#[tokio::test(start_paused = true)]
async fn one_record_is_taken_even_with_limits_of_zero() {
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |message: Message| {
        let done = done.clone();
        async move { done.send(message.record.offset).await.map_err(HandlerError::retry) }
    });
    let ordering = Ordering::Key { concurrency: NonZeroUsize::MIN };
    let config = ConsumerConfig { ordering, max_records: 0, max_bytes: 0, ..config() };
    let mut consumer = start(handled, |source| Consumer::records(source, handler).config(config)).await;
    consumer.feed(1);
    consumer.feed(2);
    assert_eq!((consumer.handled.recv().await, consumer.handled.recv().await), (Some(1), Some(2)));
    consumer.stop().await;
}

/// A consumer with order per key, whose handler never returns for records of the key `slow`.
async fn keyed_consumer(observer: Arc<dyn Observer>) -> TestConsumer {
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
struct RecordingObserver(Mutex<Vec<String>>);

impl Observer for RecordingObserver {
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
async fn a_revoked_partition_commits_up_to_the_oldest_unfinished_record() {
    let observer = Arc::new(RecordingObserver::default());
    let mut consumer = keyed_consumer(Arc::clone(&observer) as Arc<dyn Observer>).await;
    for (offset, key) in [(10, "a"), (11, "slow"), (12, "b"), (13, "slow")] {
        consumer.feed_key(offset, key);
    }
    assert_eq!(consumer.handled.recv().await, Some(10));
    assert_eq!(consumer.handled.recv().await, Some(12));
    let released = consumer.revoke().await;
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(*consumer.commits.lock().unwrap(), [vec![(partition(), 11)]], "12 is done, but 11 is not");
    assert_eq!(*observer.0.lock().unwrap(), ["assigned events/7", "committed 11 true", "revoked events/7"]);
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stuck_key_takes_a_bounded_number_of_records() {
    let mut consumer = keyed_consumer(Arc::new(())).await;
    consumer.queue = Arc::new(Queue::new(QueueLimits { records: 10_000, bytes: 1 << 20 }, -1, None));
    let (other, queue) = (TopicPartition { partition: 8, ..partition() }, Arc::clone(&consumer.queue));
    let assigned = AssignedPartition { partition: other, queue };
    consumer.events.send(Event::Assigned(vec![assigned])).await.unwrap();
    for offset in 0..1_500 {
        consumer.feed_key(offset, "slow");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = consumer.queue.next_batch(10_000, 1 << 20).await.unwrap().len();
    assert_eq!(left, 500, "1,000 records were taken");
    consumer.stop().await;
}
