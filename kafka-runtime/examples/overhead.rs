//! Compares a consumer whose handler does nothing with a bare loop over a `BaseConsumer` of rdkafka. Both read the same
//! topic of small records in turn; then both again without headers. Build it with `--release`.
//!
//! `GODWIT_TEST_KAFKA=HOST:PORT cargo run --release -p kafka-runtime --example overhead [RECORDS [ROUNDS]]`
//!
//! Creates its own topic, fills it, and deletes it at the end. CPU time is the user and system time of this process,
//! including librdkafka's threads but not the brokers, from joining the group to the last record.
#![expect(clippy::print_stdout, reason = "prints the results")]

use kafka_runtime::topics::{self, TopicSpec};
use kafka_runtime::{
    Batch, Consumer, HandlerError, KafkaConfig, KafkaProducer, KafkaProducerConfig, KafkaSource,
    KafkaSourceConfig, Outcome, Producer, ProducerRecord,
};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PARTITIONS: u32 = 4;
const PAYLOAD: &[u8] = &[b'x'; 92];
/// Time limit of one run.
const TIME_LIMIT: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let records: u64 = arguments.next().map_or(Ok(2_000_000), |text| text.parse())?;
    let rounds: u32 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let broker = std::env::var("GODWIT_TEST_KAFKA").map_err(|_| "GODWIT_TEST_KAFKA names no Kafka broker")?;
    let kafka = KafkaConfig::new(vec![broker], "overhead");
    let topic = format!("overhead-{}", uuid::Uuid::new_v4().simple());
    topics::ensure(&kafka, &[TopicSpec::new(&topic, PARTITIONS, 1)], Duration::from_secs(20)).await?;
    let result = compare(&kafka, &topic, records, rounds).await;
    delete(&kafka, &topic).await?;
    result
}

async fn compare(kafka: &KafkaConfig, topic: &str, records: u64, rounds: u32) -> Result<(), Failure> {
    fill(kafka, topic, records).await?;
    for headers in [true, false] {
        let what = if headers { "with headers" } else { "without headers" };
        let (mut least_bare, mut least_ours) = (f64::INFINITY, f64::INFINITY);
        for round in 1..=rounds {
            let run = Run { kafka, topic, group: format!("{topic}-{headers}-{round}"), headers, records };
            let bare = measured(records, run.bare()).await?;
            let ours = measured(records, run.consumer()).await?;
            println!(
                "{what}, round {round}: bare loop {bare}, consumer {ours}, ratio {:.2}",
                ours.cpu / bare.cpu
            );
            least_bare = least_bare.min(bare.cpu);
            least_ours = least_ours.min(ours.cpu);
        }
        println!(
            "{what}, least CPU-seconds per million: bare loop {least_bare:.3}, consumer {least_ours:.3}, ratio {:.2}",
            least_ours / least_bare
        );
    }
    Ok(())
}

/// The results of one run.
struct Figures {
    per_second: f64,
    /// Seconds per million records.
    cpu: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} records/s, {:.3} CPU-s per million", self.per_second, self.cpu)
    }
}

async fn measured(records: u64, run: impl Future<Output = Result<(), Failure>>) -> Result<Figures, Failure> {
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    tokio::time::timeout(TIME_LIMIT, run).await.map_err(|_| "a run took too long")??;
    let per_second = records as f64 / begin.elapsed().as_secs_f64();
    Ok(Figures { per_second, cpu: (cpu_seconds() - cpu) * 1e6 / records as f64 })
}

/// Writes records with a key of 8 bytes and a payload of 92 bytes.
async fn fill(kafka: &KafkaConfig, topic: &str, records: u64) -> Result<(), Failure> {
    let config = KafkaProducerConfig { linger_ms: 20, ..KafkaProducerConfig::default() };
    let producer = KafkaProducer::new(kafka, config)?;
    let topic: Arc<str> = topic.into();
    let in_flight = Arc::new(Semaphore::new(50_000));
    for n in 0..records {
        let permit = Arc::clone(&in_flight).acquire_owned().await?;
        let record = ProducerRecord::new(Arc::clone(&topic), format!("{:08}", n % 10_000), PAYLOAD);
        producer.enqueue(record, Box::new(move |_| drop(permit)))?;
    }
    producer.flush(Duration::from_secs(30)).await?;
    Ok(())
}

/// One run of either side.
struct Run<'a> {
    kafka: &'a KafkaConfig,
    topic: &'a str,
    group: String,
    headers: bool,
    records: u64,
}

impl Run<'_> {
    /// The minimal consumer, with the defaults of librdkafka.
    async fn bare(&self) -> Result<(), Failure> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.kafka.brokers.join(","))
            .set("group.id", format!("{}-bare", self.group))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()?;
        consumer.subscribe(&[self.topic])?;
        let (records, headers) = (self.records, self.headers);
        let read = move || -> Result<(), Failure> {
            let (mut seen, begin) = (0, Instant::now());
            while seen < records {
                match consumer.poll(Duration::from_millis(100)) {
                    Some(message) => {
                        let message = message?;
                        black_box((message.key(), message.payload(), message.offset(), message.timestamp()));
                        if headers {
                            black_box(message.headers().is_some());
                        }
                        seen += 1;
                    }
                    None if begin.elapsed() > TIME_LIMIT => return Err("records are missing".into()),
                    None => {}
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(read).await?
    }

    /// A consumer whose handler only counts.
    async fn consumer(&self) -> Result<(), Failure> {
        let (seen, all, records) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()), self.records);
        let done = Arc::clone(&all);
        let handler = tower::service_fn(move |batch: Batch| {
            let count = batch.records.len() as u64;
            if seen.fetch_add(count, Ordering::Relaxed) + count >= records {
                done.notify_one();
            }
            std::future::ready(Ok::<_, HandlerError>(Outcome::default()))
        });
        let mut config = KafkaSourceConfig::new(self.kafka.clone(), &self.group, &[self.topic]);
        config.headers = self.headers;
        let consumer = Consumer::batches(Arc::new(KafkaSource::new(config)), handler);
        let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
        running.spawn(consumer.run(stop.clone()));
        all.notified().await;
        stop.cancel();
        while let Some(result) = running.join_next().await {
            result??;
        }
        Ok(())
    }
}

async fn delete(kafka: &KafkaConfig, topic: &str) -> Result<(), Failure> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka.brokers.join(",")).create()?;
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await?;
    match deleted.into_iter().next() {
        Some(Err((_, code))) => Err(format!("the topic {topic} stays: {code}").into()),
        _ => Ok(()),
    }
}

/// User and system time of this process; 0 on systems other than Linux.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
