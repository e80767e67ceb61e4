//! Handlers that need records again.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_handler_that_needs_records_again_ends_the_consumer() {
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |batch: Batch| {
        let done = done.clone();
        async move {
            let offset = batch.records[0].offset;
            done.send(offset).await.map_err(HandlerError::retry)?;
            match offset {
                1 => Ok::<_, HandlerError>(Outcome::default()),
                _ => Err(HandlerError::restart("the database has lost transactions")),
            }
        }
    });
    let retry = RetryPolicy { attempts: std::num::NonZeroU32::new(1), ..RetryPolicy::default() };
    let config = ConsumerConfig { max_records: 1, retry, ..config() };
    let mut consumer = start(handled, |source| Consumer::batches(source, handler).config(config)).await;
    for offset in 1..4 {
        consumer.feed(offset);
    }
    let ended = consumer.running.join_next().await.unwrap().unwrap();
    assert_eq!(
        ended.unwrap_err().to_string(),
        "partition events/7 must be read again from an earlier offset; start the consumer again: the database has lost transactions"
    );
    assert_eq!(consumer.handled.recv().await, Some(1));
    assert_eq!(consumer.handled.recv().await, Some(2));
    assert_eq!(consumer.handled.recv().await, None, "neither the record nor a later one is tried");
    assert!(consumer.sink.letters.lock().unwrap().is_empty());
    assert_eq!(*consumer.commits.lock().unwrap(), [vec![(partition(), 2)]], "what is done is committed");
}

#[tokio::test]
async fn a_batch_follows_the_records_that_are_done() {
    let (done, handled) = mpsc::channel(16);
    let handler = tower::service_fn(move |batch: Batch| {
        let done = done.clone();
        async move {
            done.send(batch.follows.unwrap_or(-1)).await.map_err(HandlerError::retry)?;
            Ok::<_, HandlerError>(Outcome::default())
        }
    });
    let config = ConsumerConfig { max_records: 1, ..config() };
    let mut consumer = start(handled, |source| Consumer::batches(source, handler).config(config)).await;
    for (offset, follows) in [(3, -1), (4, 4), (9, 5), (10, 10)] {
        consumer.feed(offset);
        assert_eq!(consumer.handled.recv().await, Some(follows), "{offset}");
    }
    consumer.stop().await;
}
