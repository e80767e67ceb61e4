//! The metrics of this crate.

use crate::producer::ProduceError;
use crate::record::Position;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use std::sync::Arc;

/// Describes the metrics of this crate to the metrics recorder of the process. Call it at startup, before anything is counted.
///
/// Labels are `topic`, `consumer` (its name) and `group` where several are possible, and `outcome`. The outcome of producing is
/// `ok` or the name of a [`ProduceError`], that of handling (by [`MetricsLayer`](crate::layers::MetricsLayer)) is `ok`, `retry`
/// or `reject`.
pub fn describe_metrics() {
    let counters = [
        ("godwit_kafka_runtime_produced_total", "Records handed to a producer, by outcome."),
        ("godwit_kafka_runtime_records_total", "Records handled."),
        ("godwit_kafka_runtime_batches_total", "Batches handled."),
        ("godwit_kafka_runtime_pauses_total", "Backoff waits of a partition after a failure."),
        ("godwit_kafka_runtime_retries_total", "Retries after a backoff wait."),
        ("godwit_kafka_runtime_dead_letters_total", "Records rejected and written to the dead-letter topic."),
        ("godwit_kafka_runtime_dead_letters_ended_total", "Dead letters that operators replayed or dropped."),
        ("godwit_kafka_runtime_commits_total", "Offset commits."),
        ("godwit_kafka_runtime_commit_failures_total", "Failed offset commits; each is retried."),
        ("godwit_kafka_runtime_rebalances_total", "Changes of a consumer's partitions, by kind."),
        (
            "godwit_kafka_runtime_offset_resets_total",
            "Times that Kafka no longer had the next offset of a partition: records were skipped or are delivered again.",
        ),
        ("godwit_kafka_runtime_handled_total", "Handler calls, by outcome."),
        ("godwit_kafka_runtime_log_writes_total", "Writes of the embedded log, each with one fsync."),
        ("godwit_kafka_runtime_log_write_failures_total", "Failed writes of the embedded log."),
    ];
    for (name, meaning) in counters {
        describe_counter!(name, meaning);
    }
    describe_histogram!("godwit_kafka_runtime_handler_seconds", "Duration of handler calls.");
    describe_gauge!(
        "godwit_kafka_runtime_lag_records",
        "Records of a Kafka partition after the committed offset of the group."
    );
    describe_gauge!(
        "godwit_kafka_runtime_log_backlog_records",
        "Records of the embedded log that its consumer has not handled."
    );
    describe_gauge!(
        "godwit_kafka_runtime_log_held_records",
        "Records that the embedded log does not accept yet, because its consumer is behind."
    );
}

/// Counters of a producer.
#[derive(Debug)]
pub(crate) struct Produced {
    ok: Counter,
    failed: [(&'static str, Counter); 6],
}

impl std::fmt::Debug for Consumed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Consumed")
    }
}

impl Produced {
    pub(crate) fn new() -> Self {
        let outcome = |name: &'static str| counter!("godwit_kafka_runtime_produced_total", "outcome" => name);
        let names = ["queue_full", "timed_out", "too_large", "unavailable", "refused", "closed"];
        Self { ok: outcome("ok"), failed: names.map(|name| (name, outcome(name))) }
    }

    pub(crate) fn ok(&self, count: usize) {
        self.ok.increment(count as u64);
    }

    pub(crate) fn failed(&self, error: &ProduceError) {
        if let Some((_, counter)) = self.failed.iter().find(|(name, _)| *name == error.name()) {
            counter.increment(1);
        }
    }

    pub(crate) fn outcome(&self, result: &Result<Position, ProduceError>) {
        match result {
            Ok(_) => self.ok(1),
            Err(error) => self.failed(error),
        }
    }
}

/// Counters of the worker of a partition.
pub(crate) struct Consumed {
    pub(crate) records: Counter,
    pub(crate) batches: Counter,
    pub(crate) pauses: Counter,
    pub(crate) retries: Counter,
    pub(crate) dead_letters: Counter,
}

impl Consumed {
    pub(crate) fn new(consumer: &Arc<str>, topic: &Arc<str>) -> Self {
        let labels = [("consumer", consumer.to_string()), ("topic", topic.to_string())];
        Self {
            records: counter!("godwit_kafka_runtime_records_total", &labels),
            batches: counter!("godwit_kafka_runtime_batches_total", &labels),
            pauses: counter!("godwit_kafka_runtime_pauses_total", &labels),
            retries: counter!("godwit_kafka_runtime_retries_total", &labels),
            dead_letters: counter!("godwit_kafka_runtime_dead_letters_total", &labels),
        }
    }
}

/// Counters of commits and rebalances.
pub(crate) struct Group {
    pub(crate) commits: Counter,
    pub(crate) commit_failures: Counter,
    pub(crate) assigned: Counter,
    pub(crate) revoked: Counter,
    pub(crate) lost: Counter,
}

impl Group {
    pub(crate) fn new(consumer: &Arc<str>) -> Self {
        let labels = [("consumer", consumer.to_string())];
        let rebalances = |kind: &'static str| counter!("godwit_kafka_runtime_rebalances_total", "consumer" => consumer.to_string(), "kind" => kind);
        Self {
            commits: counter!("godwit_kafka_runtime_commits_total", &labels),
            commit_failures: counter!("godwit_kafka_runtime_commit_failures_total", &labels),
            assigned: rebalances("assigned"),
            revoked: rebalances("revoked"),
            lost: rebalances("lost"),
        }
    }
}

#[cfg(feature = "embedded")]
/// Counters of the embedded log's writes.
pub(crate) struct Writes {
    pub(crate) writes: Counter,
    pub(crate) failures: Counter,
}

#[cfg(feature = "embedded")]
impl Writes {
    pub(crate) fn new() -> Self {
        Self {
            writes: counter!("godwit_kafka_runtime_log_writes_total"),
            failures: counter!("godwit_kafka_runtime_log_write_failures_total"),
        }
    }
}

#[cfg(feature = "embedded")]
/// Gauges of one topic of the embedded log.
pub(crate) struct Backlog {
    pub(crate) records: Gauge,
    pub(crate) held: Gauge,
}

#[cfg(feature = "embedded")]
impl Backlog {
    pub(crate) fn new(topic: &Arc<str>) -> Self {
        let topic = topic.to_string();
        Self {
            records: gauge!("godwit_kafka_runtime_log_backlog_records", "topic" => topic.clone()),
            held: gauge!("godwit_kafka_runtime_log_held_records", "topic" => topic),
        }
    }
}

/// Counts ended dead letters. A count of 0 makes the counter appear.
pub(crate) fn letters_ended(topic: &str, ending: &'static str, count: u64) {
    let name = "godwit_kafka_runtime_dead_letters_ended_total";
    counter!(name, "topic" => topic.to_owned(), "ending" => ending).increment(count);
}

#[cfg(feature = "kafka")]
pub(crate) fn offset_resets(group: &str) -> Counter {
    counter!("godwit_kafka_runtime_offset_resets_total", "group" => group.to_owned())
}

#[cfg(feature = "kafka")]
pub(crate) fn lag(group: &str, topic: &str, partition: i32) -> Gauge {
    let labels =
        [("group", group.to_owned()), ("topic", topic.to_owned()), ("partition", partition.to_string())];
    gauge!("godwit_kafka_runtime_lag_records", &labels)
}
