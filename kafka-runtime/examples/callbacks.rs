//! A producer and a consumer on a topic of six partitions. The log shows every callback: partitions assigned and revoked,
//! offsets committed, records delivered. Some attempts fail on purpose; still, every record is handled at least once.
//!
//! On Apache Kafka, run it in two terminals. The instances own three partitions each; stop or kill one, and the other
//! takes over all six:
//!
//! ```sh
//! cargo run -p kafka-runtime --example callbacks -- --fail-rate 0.2 \
//!   'kafka://127.0.0.1:9092?topics=callbacks&group=callbacks&partitions=6'
//! ```
//!
//! On the embedded log, which only one process can open: replace the part before `?` by `log:/tmp/callbacks`.
//! Ctrl-C stops it gracefully: records in flight are finished and committed.

use anyhow::Context as _;
use clap::Parser;
use kafka_runtime::{
    Address, Consumer, HandlerError, LogObserver, Message, Observer, Producer, ProducerRecord, RecordHandler,
    Runtime, observed,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A producer and a consumer that log every callback.
#[derive(Parser)]
struct Options {
    /// Address: kafka://HOST:PORT?topics=TOPIC&group=GROUP&partitions=6, or log:DIRECTORY?...
    address: Address,
    /// Number of records to produce
    #[arg(long, default_value_t = 100)]
    records: u32,
    /// Interval between records, in milliseconds
    #[arg(long, default_value_t = 100)]
    every_ms: u64,
    /// Share of attempts that fail, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    fail_rate: f64,
    /// Seed of the failures: the same seed fails the same attempts if the records arrive in the same order
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    tracing_subscriber::fmt().with_ansi(is_terminal).init();
    let observer: Arc<dyn Observer> = Arc::new(LogObserver);
    let handler = handler(options.fail_rate, options.seed);
    let mut runtime = Runtime::new();
    let producer = observed(runtime.producer(&options.address)?, Arc::clone(&observer));
    let runtime = runtime.consumer("callbacks", &options.address, |source| {
        Consumer::records(source, handler).observe(observer)
    })?;

    let stop = CancellationToken::new();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut consuming = pin!(runtime.run(stop.clone()));
    let mut producing = pin!(produce(producer.as_ref(), &options));
    let mut is_producing = true;
    loop {
        tokio::select! {
            result = &mut consuming => break result.context("the consumer ended"),
            () = &mut producing, if is_producing => is_producing = false,
            _ = interrupt.recv() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
        }
    }
}

/// A handler that fails at random.
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

/// Produces records at the configured interval.
async fn produce(producer: &dyn Producer, options: &Options) {
    let topic: Arc<str> = options.address.topics().first().map_or("", String::as_str).into();
    let mut pace = tokio::time::interval(Duration::from_millis(options.every_ms.max(1)));
    for n in 0..options.records {
        pace.tick().await;
        let record =
            ProducerRecord::new(Arc::clone(&topic), format!("key-{}", n % 50), format!("record {n}"));
        // The observer gets the delivery report.
        if let Err(error) = producer.enqueue(record, Box::new(|_| {})) {
            tracing::warn!(%error, "record not accepted");
        }
    }
}
