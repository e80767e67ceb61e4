//! A shop: three services in one process handle orders, each with its own group, settings and layers. `billing` handles
//! single records, `stock` handles batches, `audit` reads two topics. One configuration file holds the addresses and all
//! settings.
//!
//! On the embedded log, with nothing installed (the file says `folder`):
//!
//! ```sh
//! cargo run -p kafka-runtime --example services -- kafka-runtime/examples/services.toml --orders 20
//! ```
//!
//! On Apache Kafka: replace `folder` by `brokers = ["127.0.0.1:9092"]` in each section, and add `replication = 1` if there is
//! only one broker. The README of this crate lists all settings. Ctrl-C stops it gracefully.

use anyhow::Context as _;
use clap::Parser;
use kafka_runtime::layers::{CatchPanicLayer, ConcurrencyLayer, DeadlineLayer, MetricsLayer, TraceLayer};
use kafka_runtime::{
    Address, Batch, BatchHandler, HandlerError, Message, Outcome, Producer, ProducerRecord, Record,
    RecordHandler, Runtime,
};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

/// Several services from one configuration file.
#[derive(Parser)]
struct Options {
    /// Configuration file
    config: PathBuf,
    /// Number of orders to place at the start; every tenth is invalid and cannot be billed
    #[arg(long, default_value_t = 0)]
    orders: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    orders: Address,
    billing: Address,
    stock: Address,
    audit: Address,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    tracing_subscriber::fmt().with_ansi(is_terminal).init();
    let file =
        std::fs::read_to_string(&options.config).with_context(|| options.config.display().to_string())?;
    let config: Config = toml::from_str(&file)?;

    let mut runtime = Runtime::new();
    let producer = runtime.producer(&config.orders)?;
    let runtime = runtime
        .records("billing", &config.billing, billing())?
        .batches("stock", &config.stock, stock())?
        .records("audit", &config.audit, audit())?;

    let stop = CancellationToken::new();
    let running = runtime.run(stop.clone());
    let placing = place(producer.as_ref(), config.orders.topics(), options.orders);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::pin!(running, placing);
    let mut is_placing = true;
    loop {
        tokio::select! {
            ended = &mut running => break Ok(ended?),
            () = &mut placing, if is_placing => is_placing = false,
            _ = interrupt.recv() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
        }
    }
}

/// Parses an order such as `2 tea`.
fn parse(record: &Record) -> Option<(u32, &str)> {
    let (count, what) = std::str::from_utf8(&record.payload).ok()?.split_once(' ')?;
    Some((count.parse().ok()?, what))
}

/// Sends an invoice for each order. Rejects invalid orders, which then go to the dead letters.
fn billing() -> impl RecordHandler {
    ServiceBuilder::new()
        .layer(TraceLayer)
        .layer(MetricsLayer::new("billing"))
        .layer(ConcurrencyLayer::new(16))
        // Inside the concurrency limit, so that waiting for a permit does not count.
        .layer(DeadlineLayer::new(Duration::from_secs(2)))
        .layer(CatchPanicLayer)
        .service_fn(|message: Message| async move {
            let Some((count, what)) = parse(&message.record) else {
                return Err(HandlerError::reject("not an order"));
            };
            let customer = String::from_utf8_lossy(&message.record.key);
            tracing::info!(%customer, count, what, "billed");
            Ok(())
        })
}

/// Books all orders of a batch at once. Ignores invalid orders.
fn stock() -> impl BatchHandler {
    ServiceBuilder::new().layer(MetricsLayer::new("stock")).layer(CatchPanicLayer).service_fn(
        |batch: Batch| async move {
            let taken: u32 = batch.records.iter().filter_map(parse).map(|(count, _)| count).sum();
            tracing::info!(records = batch.records.len(), taken, "booked");
            Ok::<_, HandlerError>(Outcome::default())
        },
    )
}

/// Logs every record.
fn audit() -> impl RecordHandler {
    tower::service_fn(|message: Message| async move {
        let Record { topic, partition, offset, .. } = &message.record;
        tracing::info!(%topic, partition, offset, "seen");
        Ok::<_, HandlerError>(())
    })
}

/// Places orders, one after the other.
async fn place(producer: &dyn Producer, topics: &[String], orders: u32) {
    let topic: Arc<str> = topics.first().map_or("", String::as_str).into();
    for n in 0..orders {
        let order = if n % 10 == 9 { "as always".to_owned() } else { format!("{} tea", n % 3 + 1) };
        let record = ProducerRecord::new(Arc::clone(&topic), format!("customer-{}", n % 7), order);
        // The topic may not exist yet and brokers may be unreachable, so retry the same order.
        while let Err(error) = producer.send(record.clone()).await {
            tracing::warn!(%error, "order not accepted, trying again");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    if orders > 0 {
        tracing::info!(orders, "all orders are placed");
    }
}
