//! A producer and a consumer on a topic of six partitions, with every callback in the log: partitions that come and go,
//! offsets that are committed, records that are delivered. Failures are simulated; every record is handled at least once all
//! the same.
//!
//! On Apache Kafka, in two terminals, which share the partitions 3 and 3; stop or kill one, and the other takes all six:
//!
//! ```sh
//! cargo run -p kafka-runtime --example callbacks -- 'kafka://127.0.0.1:9092?topics=callbacks&group=callbacks' --fail-rate 0.2
//! ```
//!
//! On the embedded log, which is read by one process: the same with `'log:/tmp/callbacks?topics=callbacks&group=callbacks'`.
//! Ctrl-C ends it in order: what is in flight is finished and committed.

use anyhow::{Context as _, bail};
use clap::Parser;
use kafka_runtime::topics::{self, TopicSpec};
use kafka_runtime::{
    Address, Consumer, HandlerError, KafkaProducer, KafkaSource, Log, LogObserver, LogTopic, Message,
    Observer, Producer, ProducerRecord, RecordHandler, Source, observed,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

const PARTITIONS: u32 = 6;
const FLUSH: Duration = Duration::from_secs(5);

/// A producer and a consumer, with every callback in the log.
#[derive(Parser)]
struct Options {
    /// Where: kafka://HOST:PORT?topics=TOPIC&group=GROUP or log:FOLDER?topics=TOPIC&group=GROUP
    address: Address,
    /// How many records to produce
    #[arg(long, default_value_t = 100)]
    records: u32,
    /// Milliseconds between two of them
    #[arg(long, default_value_t = 100)]
    every_ms: u64,
    /// The share of attempts that fail, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    fail_rate: f64,
    /// The same seed fails in the same places, as long as records come in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    tracing_subscriber::fmt().with_ansi(is_terminal).init();
    let (producer, source) = open(&options.address).await?;
    let observer: Arc<dyn Observer> = Arc::new(LogObserver);
    let producer = observed(producer, Arc::clone(&observer));
    let consumer = Consumer::records(source, handler(options.fail_rate, options.seed))
        .named("callbacks")
        .config(options.address.consumer_config())
        .observe(observer);

    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (mut consuming, mut producing) =
        (pin!(consumer.run(stop.clone())), pin!(produce(producer.as_ref(), &options)));
    let mut is_producing = true;
    loop {
        tokio::select! {
            result = &mut consuming => break result?,
            () = &mut producing, if is_producing => is_producing = false,
            _ = interrupt.recv() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
        }
    }
    producer.flush(FLUSH).await.context("what was produced last was not confirmed")?;
    Ok(())
}

/// Both ends of the topic of an address, with six partitions.
async fn open(address: &Address) -> anyhow::Result<(Arc<dyn Producer>, Arc<dyn Source>)> {
    let ([topic], Some(group)) = (address.topics(), address.group()) else {
        bail!("the address names one topic and a group: ?topics=callbacks&group=callbacks");
    };
    if let Some(mut config) = address.log_config() {
        config.topics = vec![LogTopic::new(topic.as_str(), PARTITIONS)];
        let log = Log::open(config)?;
        let source = log.source(group, &[topic])?;
        return Ok((Arc::new(log), Arc::new(source)));
    }
    let (Some(kafka), Some(source)) = (address.kafka_config()?, address.source_config()?) else {
        bail!("an address is a log or Kafka");
    };
    topics::ensure(&kafka, &[TopicSpec::new(topic, PARTITIONS, 1)], address.start_timeout()).await?;
    let producer = KafkaProducer::new(&kafka, address.producer_config())?;
    Ok((Arc::new(producer), Arc::new(KafkaSource::new(source))))
}

/// Handles records, or fails to.
fn handler(fail_rate: f64, seed: u64) -> impl RecordHandler {
    let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
    tower::service_fn(move |Message { record, attempt }: Message| {
        let fails =
            random.lock().unwrap_or_else(PoisonError::into_inner).random_bool(fail_rate.clamp(0.0, 1.0));
        let result = match fails {
            true => Err(HandlerError::retry("a simulated failure")),
            false => {
                let (topic, partition, offset) = (&*record.topic, record.partition, record.offset);
                tracing::info!(topic, partition, offset, attempt, "handled");
                Ok(())
            }
        };
        async { result }
    })
}

/// Produces what it is to, at its pace.
async fn produce(producer: &dyn Producer, options: &Options) {
    let topic: Arc<str> = options.address.topics().first().map_or("", String::as_str).into();
    let mut pace = tokio::time::interval(Duration::from_millis(options.every_ms.max(1)));
    for n in 0..options.records {
        pace.tick().await;
        let record =
            ProducerRecord::new(Arc::clone(&topic), format!("key-{}", n % 50), format!("record {n}"));
        // Its delivery report is the observer's.
        if let Err(error) = producer.enqueue(record, Box::new(|_| {})) {
            tracing::warn!(%error, "not taken");
        }
    }
}
