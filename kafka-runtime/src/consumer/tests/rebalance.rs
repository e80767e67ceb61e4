//! Revoked and lost partitions.

use super::*;

#[tokio::test]
async fn a_revoked_partition_is_finished_and_committed_before_its_release() {
    let mut consumer = slow_consumer(Duration::from_millis(100)).await;
    consumer.feed(41);
    consumer.feed(42);
    assert_eq!(consumer.handled.recv().await, Some(41));
    // 42 is in flight now, 43 is queued.
    consumer.feed(43);
    let released = consumer.revoke().await;
    assert_eq!(released.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(consumer.handled.recv().await, Some(42));
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(*consumer.commits.lock().unwrap(), [vec![(partition(), 43)]], "committed before the release");
    assert_eq!(consumer.stop().await.len(), 1, "nothing is committed after the release");
}

#[tokio::test]
async fn a_revocation_waits_no_longer_than_the_finish_timeout() {
    let consumer = slow_consumer(Duration::from_secs(3600)).await;
    consumer.feed(1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begin = Instant::now();
    let released = consumer.revoke().await;
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!((500..5_000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    assert!(consumer.stop().await.is_empty(), "an unfinished record is not committed");
}

#[tokio::test]
async fn a_lost_partition_is_neither_finished_nor_committed() {
    let mut consumer = slow_consumer(Duration::from_millis(100)).await;
    consumer.feed(1);
    assert_eq!(consumer.handled.recv().await, Some(1));
    consumer.feed(2);
    tokio::time::sleep(Duration::from_millis(50)).await;
    consumer.events.send(Event::Lost(vec![partition()])).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(consumer.handled.try_recv().is_err(), "2 was in flight, and is abandoned");
    assert!(consumer.stop().await.is_empty(), "not even the finished record is committed");
}

#[tokio::test(start_paused = true)]
async fn outputs_of_a_lost_partition_are_left_to_the_next_owner() {
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
    let mut consumer = start(handled, |source| Consumer::transform(source, handler).config(config)).await;
    consumer.feed(1);
    consumer.feed(2);
    assert_eq!(consumer.handled.recv().await, Some(1));
    consumer.queue.close();
    gate.notify_one();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(consumer.handled.try_recv().is_err(), "neither record is retried alone");
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_waits_for_its_hook_is_dropped_when_its_partition_is_lost() {
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |message: Message| {
        let done = done.clone();
        async move { done.send(message.record.offset).await.map_err(HandlerError::retry) }
    });
    let config = ConsumerConfig { commit_interval: Duration::from_millis(10), ..config() };
    let hook = || tokio::time::sleep(Duration::from_secs(1)).map(Ok::<_, Error>);
    let consumer = |source| Consumer::records(source, handler).config(config).before_commit(hook);
    let mut consumer = start(handled, consumer).await;
    consumer.feed(1);
    assert_eq!(consumer.handled.recv().await, Some(1));
    tokio::time::sleep(Duration::from_millis(500)).await;
    consumer.events.send(Event::Lost(vec![partition()])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(consumer.stop().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_commit_of_a_revoked_partition_is_retried() {
    let mut consumer = slow_consumer(Duration::from_millis(1)).await;
    consumer.feed(1);
    assert_eq!(consumer.handled.recv().await, Some(1));
    consumer.refusals.store(3, SeqCst);
    let released = consumer.revoke().await;
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(*consumer.commits.lock().unwrap(), [vec![(partition(), 2)]]);
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_revocation_takes_no_longer_than_the_finish_and_commit_timeouts() {
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
    let mut consumer = start(handled, consumer).await;
    consumer.feed(1);
    consumer.feed(2);
    assert_eq!(consumer.handled.recv().await, Some(1));
    assert_eq!(consumer.handled.recv().await, Some(2));
    // The hooks of the running commit and of the next one never return.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begin = Instant::now();
    let released = consumer.revoke().await;
    while released.try_recv() == Err(TryRecvError::Empty) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!((34..36).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    assert!(consumer.stop().await.is_empty());
}
