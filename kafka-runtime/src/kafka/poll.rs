//! The thread that polls.
//!
//! One thread calls [`BaseConsumer::poll`] all the time, also when every partition is paused: that is what keeps the member
//! in its group and runs the rebalance callback. It never waits for a worker: a partition whose queue is full is paused,
//! and resumed when half of the queue is free. Pausing throws away what librdkafka has fetched ahead, and resuming fetches
//! on after the last record that was handed over, so nothing is skipped.

use super::assignment::{Assignment, Taken, list};
use crate::error::Error;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a call waits for a record. Closing is noticed after it.
const WAIT: Duration = Duration::from_millis(100);
/// How often paused partitions are looked at; their workers still have half a queue then.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) fn run(consumer: Arc<BaseConsumer<Assignment>>, closing: &AtomicBool) {
    let assignment = Arc::clone(consumer.context());
    let mut paused = false;
    let mut looked = Instant::now();
    while !closing.load(Ordering::SeqCst) {
        match consumer.poll(if paused { LOOK_EVERY } else { WAIT }) {
            None => {}
            Some(Ok(message)) => {
                if let Taken::Full(partition) = assignment.take(&message) {
                    paused = true;
                    if let Err(error) = consumer.pause(&list([&partition])) {
                        // It goes on being fetched; the queue takes more than it should until it is resumed.
                        tracing::warn!(%error, %partition, "cannot pause");
                    }
                }
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                let error = Error::Kafka { action: "consume", source: error };
                assignment.tell(Err(error));
                break;
            }
            // Reported to the context as well; librdkafka goes on by itself.
            Some(Err(error)) => tracing::debug!(%error, "poll"),
        }
        if paused && looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            let resumable = assignment.resumable();
            if !resumable.is_empty()
                && let Err(error) = consumer.resume(&list(&resumable))
            {
                tracing::error!(%error, "cannot resume");
            }
            paused = assignment.any_paused();
        }
    }
    assignment.close();
    leave(consumer);
}

/// Closes the consumer on this thread: that leaves the group and takes a moment. A commit may still hold it.
fn leave(mut consumer: Arc<BaseConsumer<Assignment>>) {
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(last) => return drop(last),
            Err(shared) => consumer = shared,
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
