//! Measures the throughput of the embedded log, from enqueueing to the end of handling. Build it with `--release`.
//!
//! `cargo run --release -p kafka-runtime --example log_throughput [RECORDS]`
#![expect(clippy::print_stdout, reason = "prints the results")]

use kafka_runtime::{
    Batch, Consumer, DeadLetters, HandlerError, Log, LogConfig, LogTopic, Outcome, ProduceError, Producer,
    ProducerRecord,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let records = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let directory = tempfile::tempdir()?;
    let topics = vec![LogTopic::new("read", 4), LogTopic::untrimmed("dead"), LogTopic::untrimmed("unread")];
    let log = Log::open(LogConfig { max_backlog: 20_000, ..LogConfig::new(directory.path(), topics) })?;

    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    let handler = tower::service_fn(move |batch: Batch| {
        count.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
        async { Ok::<_, HandlerError>(Outcome::default()) }
    });
    let dead_letters = DeadLetters::new(Arc::new(log.clone()), "dead");
    let consumer =
        Consumer::batches(Arc::new(log.source("bench", &["read"])?), handler).dead_letters(dead_letters);
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(consumer.run(stop.clone()));

    for topic in ["unread", "read"] {
        let (begin, cpu) = (Instant::now(), cpu_seconds());
        flood(&log, topic, records).await?;
        let elapsed = begin.elapsed().as_secs_f64();
        let cpu = (cpu_seconds() - cpu) * 1e6 / records as f64;
        println!("flood, {topic}: {:.0} records/s, {cpu:.2} CPU-s per million", records as f64 / elapsed);
    }
    paced(&log).await?;
    stop.cancel();
    while let Some(result) = running.join_next().await {
        result??;
    }
    println!("handled: {}", handled.load(Ordering::Relaxed));
    Ok(())
}

/// Keeps 6,400 records of 64 bytes in flight, with 100 keys.
async fn flood(log: &Log, topic: &str, records: usize) -> Result<(), ProduceError> {
    let topic: Arc<str> = topic.into();
    let in_flight = Arc::new(Semaphore::new(6_400));
    for n in 0..records {
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else {
            return Err(ProduceError::Closed);
        };
        let record = ProducerRecord::new(Arc::clone(&topic), (n % 100).to_string(), &[0_u8; 64][..]);
        log.enqueue(record, Box::new(move |_| drop(permit)))?;
    }
    log.flush(Duration::from_secs(10)).await
}

/// Sends about 1,000 records per second, one after another.
async fn paced(log: &Log) -> Result<(), ProduceError> {
    let (count, cpu) = (3_000, cpu_seconds());
    let mut waits = Vec::with_capacity(count);
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    for n in 0..count {
        ticks.tick().await;
        let begin = Instant::now();
        log.send(ProducerRecord::new("read".into(), n.to_string(), &[0_u8; 64][..])).await?;
        waits.push(begin.elapsed());
    }
    waits.sort_unstable();
    let cpu = (cpu_seconds() - cpu) * 1e6 / count as f64;
    println!(
        "1,000/s: ack p50 {:?}, p99 {:?}, {cpu:.0} CPU-s per million",
        waits[count / 2],
        waits[count * 99 / 100]
    );
    Ok(())
}

/// User and system time of this process; 0 on systems other than Linux.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
