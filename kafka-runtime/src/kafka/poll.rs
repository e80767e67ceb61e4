//! The thread that polls.
//!
//! One thread calls [`BaseConsumer::poll`] all the time, also when every partition is paused: that is what keeps the member
//! in its group and runs the rebalance callback. It never waits for a worker: a partition whose queue is full is paused,
//! and resumed when half of the queue is free. Pausing throws away what librdkafka has fetched ahead, and resuming fetches
//! on after the last record that was handed over, so nothing is skipped. Records that are there already are gathered into
//! [runs](super::run).

use super::assignment::{Assignment, list};
use super::run::Run;
use crate::error::Error;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a call waits for a record. Closing is noticed after it.
const WAIT: Duration = Duration::from_millis(100);
/// How often it is asked how long paused partitions are: as often as statistics come.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often paused partitions are looked at; their workers still have half a queue then.
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(super) fn run(consumer: Arc<BaseConsumer<Assignment>>, closing: &AtomicBool, with_headers: bool) {
    let assignment = Arc::clone(consumer.context());
    let mut poller =
        Poller { consumer: &consumer, run: Run::new(with_headers), paused: None, asked: Instant::now() };
    while !closing.load(Ordering::SeqCst) {
        match consumer.poll(poller.wait()) {
            None => poller.hand_over(),
            Some(Ok(message)) => {
                if !poller.run.takes(&message) {
                    poller.hand_over();
                    poller.run.begin(&assignment, &message);
                }
                poller.run.add(&message);
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                assignment.tell(Err(Error::Kafka { action: "consume", source: error }));
                break;
            }
            // librdkafka goes on by itself.
            Some(Err(error)) => assignment.note(&error),
        }
    }
    assignment.close();
    leave(consumer);
}

struct Poller<'a> {
    consumer: &'a Arc<BaseConsumer<Assignment>>,
    run: Run,
    /// While partitions are paused: when they were looked at.
    paused: Option<Instant>,
    /// When it was asked how long paused partitions are.
    asked: Instant,
}

impl Poller<'_> {
    /// How long to wait for the next record. What is gathered does not wait for what is not there yet.
    fn wait(&self) -> Duration {
        match (self.run.is_empty(), self.paused) {
            (false, _) => Duration::ZERO,
            (true, Some(_)) => LOOK_EVERY,
            (true, None) => WAIT,
        }
    }

    /// Gives what is gathered to its worker, pauses its partition if there is no room for more, and resumes those that have
    /// room again.
    fn hand_over(&mut self) {
        if let Some(partition) = self.run.hand_over() {
            self.paused.get_or_insert_with(Instant::now);
            if let Err(error) = self.consumer.pause(&list([&partition])) {
                // It goes on being fetched; the queue takes more than it should until it is resumed.
                tracing::warn!(%error, %partition, "cannot pause");
            }
        }
        if self.paused.is_some_and(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.resume();
        }
    }

    fn resume(&mut self) {
        let assignment = self.consumer.context();
        let resumable = assignment.resumable();
        if !resumable.is_empty()
            && let Err(error) = self.consumer.resume(&list(&resumable))
        {
            tracing::error!(%error, "cannot resume");
        }
        self.paused = assignment.any_paused().then(Instant::now);
        if self.paused.is_some() && self.asked.elapsed() >= ASK_EVERY {
            self.asked = Instant::now();
            self.ask_ends();
        }
    }

    /// On a thread of its own: polling goes on meanwhile.
    fn ask_ends(&self) {
        let consumer = Arc::clone(self.consumer);
        let ask = move || consumer.context().ask_ends(&consumer);
        if let Err(error) = thread::Builder::new().name("kafka-ends".into()).spawn(ask) {
            tracing::warn!(%error, "cannot start a thread that asks how long paused partitions are");
        }
    }
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
