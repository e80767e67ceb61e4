//! The values of metrics.

use crate::backend::{Backend, Kafka};
use crate::support::{Handled, Running, config, consumer, eventually, payload, produce};
use kafka_runtime::{
    Archive as _, Consumer, ConsumerConfig, HandlerError, KafkaArchive, Message, Outcome, QueueLimits,
    Rejected,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// The recorder of this process. Must be installed before anything is counted.
static RECORDER: LazyLock<PrometheusHandle> =
    LazyLock::new(|| PrometheusBuilder::new().install_recorder().expect("no other recorder is installed"));

/// The sum of all series of the metric `godwit_kafka_runtime_{name}` with a label.
fn metric(name: &str, label: (&str, &str)) -> Option<f64> {
    let (name, label) = (format!("godwit_kafka_runtime_{name}{{"), format!("{}=\"{}\"", label.0, label.1));
    let text = RECORDER.render();
    let series = text.lines().filter(|line| line.starts_with(&name) && line.contains(&label));
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    series.filter_map(value).reduce(|a, b| a + b)
}

pub(crate) async fn the_work_of_a_consumer_is_counted(backend: impl Backend) {
    LazyLock::force(&RECORDER);
    let name = format!("counted-{}", uuid::Uuid::new_v4().simple());
    let count = |metric_name: &str| metric(metric_name, ("consumer", &name));
    let (handled, failed) = (Handled::default(), AtomicBool::new(false));
    let failed = Arc::new(failed);
    let handler = handled.handler_with(move |batch| {
        if !failed.swap(true, Ordering::SeqCst) {
            return Err(HandlerError::retry("not yet"));
        }
        let bad = batch.records.iter().position(|record| payload(record) == "a:3");
        let reject = |index| Rejected { index, reason: "unreadable".into() };
        Ok(Outcome { rejected: bad.map(reject).into_iter().collect() })
    });
    let consumer = consumer(&backend, handler).named(name.as_str());
    // One commit only, at the end.
    let commit_interval = Duration::from_secs(3600);
    let config = ConsumerConfig { commit_interval, max_records: 1, ..config() };
    let running = Running::spawn(consumer.config(config));
    produce(&backend, &["a"], 10).await;
    handled.wait_for(10).await;
    eventually("the last record is counted", async || count("records_total") == Some(10.0)).await;
    assert_eq!(count("batches_total"), Some(10.0));
    assert_eq!((count("pauses_total"), count("retries_total")), (Some(1.0), Some(1.0)));
    assert_eq!(count("dead_letters_total"), Some(1.0));
    assert_eq!(count("rebalances_total"), Some(1.0), "assigned");
    assert_eq!((count("commits_total"), count("commit_failures_total")), (Some(0.0), Some(0.0)));
    running.stop().await;
    assert_eq!((count("commits_total"), count("commit_failures_total")), (Some(1.0), Some(0.0)));
}

/// A handler that fails from an offset on.
fn failing_from(from: &Arc<AtomicI64>) -> impl kafka_runtime::RecordHandler {
    let from = Arc::clone(from);
    tower::service_fn(move |message: Message| {
        let fails = message.record.offset >= from.load(Ordering::SeqCst);
        async move { if fails { Err(HandlerError::retry("not yet")) } else { Ok(()) } }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_counts_uncommitted_records_before_the_first_commit_and_while_paused() {
    LazyLock::force(&RECORDER);
    let mut backend = Kafka::with_partitions(1).await;
    backend.source_config.queue = QueueLimits { records: 20, bytes: 1 << 20 };
    backend.source_config.kafka.properties.push(("statistics.interval.ms".into(), "500".into()));
    let group = backend.source_config.group.clone();
    let lag = || metric("lag_records", ("group", &group));
    produce(&backend, &["a"], 5).await;
    let from = Arc::new(AtomicI64::new(0));
    let consumer = || Consumer::records(backend.source(), failing_from(&from)).config(config());
    let running = Running::spawn(consumer());
    eventually("the first record fails, and the group has not committed", async || lag() == Some(5.0)).await;
    produce(&backend, &["a"], 95).await;
    eventually("the queue is full, and fetching is paused", async || lag() == Some(100.0)).await;

    // Another group on the same topic has its own lag.
    let other = format!("{}-other", backend.topic());
    let all = Arc::new(AtomicI64::new(i64::MAX));
    let source = backend.source_of("other", &[&backend.topic()]);
    let second = Running::spawn(Consumer::records(source, failing_from(&all)).config(config()));
    eventually("the other group is done", async || metric("lag_records", ("group", &other)) == Some(0.0))
        .await;
    second.stop().await;
    produce(&backend, &["a"], 10).await;
    eventually("new records count while fetching is paused", async || lag() == Some(110.0)).await;

    from.store(60, Ordering::SeqCst);
    eventually("committed records do not count", async || lag() == Some(50.0)).await;
    from.store(i64::MAX, Ordering::SeqCst);
    eventually("all records are committed", async || lag() == Some(0.0)).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_removed_before_they_were_handled_count_as_an_offset_reset() {
    LazyLock::force(&RECORDER);
    let backend = Kafka::with_partitions(1).await;
    let resets = || metric("offset_resets_total", ("group", &backend.source_config.group));
    let first = Handled::default();
    produce(&backend, &["a"], 5).await;
    let running = Running::start(&backend, first.handler());
    first.wait_for(5).await;
    running.stop().await;
    produce(&backend, &["a"], 5).await;
    assert_eq!(resets(), None, "a start offset is not a reset");
    let topic = KafkaArchive::new(backend.source_config.kafka.clone(), backend.topic());
    topic.remove_before(0, 8).await.unwrap();
    let second = Handled::default();
    let running = Running::start(&backend, second.handler());
    second.wait_for(2).await;
    assert_eq!(second.records()[0].offset, 8);
    assert_eq!(resets(), Some(1.0));
    running.stop().await;
}
