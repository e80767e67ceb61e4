//! Revocations and losses during a shutdown.

use super::*;

/// The commits of a consumer that shuts down with one record done, one in flight, and `event` pending.
async fn stopped_with(event: Event) -> Vec<Offsets> {
    let mut consumer = slow_consumer(Duration::from_millis(100)).await;
    consumer.feed(1);
    assert_eq!(consumer.handled.recv().await, Some(1));
    consumer.feed(2);
    tokio::time::sleep(Duration::from_millis(50)).await;
    consumer.stop.cancel();
    consumer.events.send(event).await.unwrap();
    consumer.stop().await
}

#[tokio::test(start_paused = true)]
async fn a_partition_lost_at_the_start_of_a_shutdown_is_not_committed() {
    assert!(stopped_with(Event::Lost(vec![partition()])).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_partition_lost_while_a_shutdown_finishes_records_is_not_committed() {
    let mut consumer = slow_consumer(Duration::from_millis(100)).await;
    consumer.feed(1);
    tokio::time::sleep(Duration::from_millis(50)).await;
    consumer.stop.cancel();
    tokio::time::sleep(Duration::from_millis(10)).await;
    consumer.events.send(Event::Lost(vec![partition()])).await.unwrap();
    assert_eq!(consumer.handled.recv().await, Some(1));
    assert!(consumer.stop().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_partition_revoked_during_a_shutdown_is_finished_committed_and_released() {
    let (signal, released) = sync_channel(1);
    let revoked = Event::Revoked { partitions: vec![partition()], release: Release::new(signal) };
    assert_eq!(stopped_with(revoked).await, [vec![(partition(), 3)]]);
    assert_eq!(released.try_recv(), Err(TryRecvError::Disconnected));
}
