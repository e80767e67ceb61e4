//! The polling thread.
//!
//! One thread calls [`BaseConsumer::poll`] all the time, even while every partition is paused: polling keeps
//! the member in its group and runs the rebalance callback. The thread never waits for a worker. A partition
//! whose queue is full is paused, and resumed when half of the queue is free. Pausing discards the records that
//! librdkafka has fetched ahead; resuming fetches from the last record that was handed over, so no record is
//! skipped. Records that are available at once are collected into [runs](super::run).

use super::assignment::{Assignment, list};
use super::run::Run;
use crate::error::Error;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long one poll waits for a record, and so the delay until closing is noticed.
const WAIT: Duration = Duration::from_millis(100);
/// Interval of the queries for the ends of paused partitions: the interval of librdkafka's statistics.
const QUERY_EVERY: Duration = Duration::from_secs(5);
/// Interval of the checks of paused partitions. Their workers still have half a queue then.
const CHECK_EVERY: Duration = Duration::from_millis(10);

pub(super) fn run(consumer: Arc<BaseConsumer<Assignment>>, closing: &AtomicBool, with_headers: bool) {
    let assignment = Arc::clone(consumer.context());
    let mut poller =
        Poller { consumer: &consumer, run: Run::new(with_headers), paused: None, queried: Instant::now() };
    while !closing.load(Ordering::SeqCst) {
        match consumer.poll(poller.wait()) {
            None => poller.hand_over(),
            Some(Ok(message)) => {
                if !poller.run.accepts(&message) {
                    poller.hand_over();
                    poller.run.begin(&assignment, &message);
                }
                poller.run.add(&message);
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                assignment.send(Err(Error::Kafka { action: "consume", source: error }));
                break;
            }
            // librdkafka recovers by itself.
            Some(Err(error)) => assignment.record_error(&error),
        }
    }
    assignment.close();
    close(consumer);
}

struct Poller<'a> {
    consumer: &'a Arc<BaseConsumer<Assignment>>,
    run: Run,
    /// While partitions are paused: the time of the last check.
    paused: Option<Instant>,
    /// The time of the last query for the ends of paused partitions.
    queried: Instant,
}

impl Poller<'_> {
    /// How long to wait for the next record: not at all while there are collected records.
    fn wait(&self) -> Duration {
        match (self.run.is_empty(), self.paused) {
            (false, _) => Duration::ZERO,
            (true, Some(_)) => CHECK_EVERY,
            (true, None) => WAIT,
        }
    }

    /// Hands the collected records to their worker. Pauses the partition if its queue is full, and resumes
    /// partitions that have room again.
    fn hand_over(&mut self) {
        if let Some(partition) = self.run.hand_over() {
            self.paused.get_or_insert_with(Instant::now);
            if let Err(error) = self.consumer.pause(&list([&partition])) {
                // The partition is still fetched. Its queue exceeds the limit until it is resumed.
                tracing::warn!(%error, %partition, "cannot pause a partition");
            }
        }
        if self.paused.is_some_and(|looked| looked.elapsed() >= CHECK_EVERY) {
            self.resume();
        }
    }

    fn resume(&mut self) {
        let assignment = self.consumer.context();
        let resumable = assignment.resumable();
        if !resumable.is_empty()
            && let Err(error) = self.consumer.resume(&list(&resumable))
        {
            tracing::error!(%error, "cannot resume partitions");
        }
        self.paused = assignment.any_paused().then(Instant::now);
        if self.paused.is_some() && self.queried.elapsed() >= QUERY_EVERY {
            self.queried = Instant::now();
            self.query_ends();
        }
    }

    /// The query blocks, so it runs on its own thread while polling continues.
    fn query_ends(&self) {
        let consumer = Arc::clone(self.consumer);
        let query = move || consumer.context().query_ends(&consumer);
        if let Err(error) = thread::Builder::new().name("kafka-ends".into()).spawn(query) {
            tracing::warn!(%error, "cannot start the thread that queries the ends of paused partitions");
        }
    }
}

/// Closes the consumer on this thread, because leaving the group takes a moment. A commit in flight may still
/// hold it.
fn close(mut consumer: Arc<BaseConsumer<Assignment>>) {
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(last) => return drop(last),
            Err(shared) => consumer = shared,
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
