//! A shop: orders come in, and three services in one process handle them, each with its own group, settings and filters.
//! `billing` takes record by record, `stock` batch by batch, `audit` reads two topics. Where everything is, and how it is
//! handled, is in one file of configuration.
//!
//! On the embedded log, with nothing installed (the file says `folder`):
//!
//! ```sh
//! cargo run -p kafka-runtime --example services -- kafka-runtime/examples/services.toml --orders 20
//! ```
//!
//! On Apache Kafka: the same with `brokers = ["127.0.0.1:9092"]` in place of `folder` in each section, and `replication = 1` if
//! there is one broker. Any setting is in the README of this crate. Ctrl-C ends it in order.

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

/// Several services from one file of configuration.
#[derive(Parser)]
struct Options {
    /// The file
    config: PathBuf,
    /// How many orders to place at the start; every tenth can't be billed
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

/// `2 tea` is an order.
fn parse(record: &Record) -> Option<(u32, &str)> {
    let (count, what) = std::str::from_utf8(&record.payload).ok()?.split_once(' ')?;
    Some((count.parse().ok()?, what))
}

/// Sends an invoice for each order. What is no order is rejected, and so goes to the dead letters.
fn billing() -> impl RecordHandler {
    ServiceBuilder::new()
        .layer(TraceLayer)
        .layer(MetricsLayer::new("billing"))
        .layer(ConcurrencyLayer::new(16))
        // Inside of the bound: waiting for a place is not the handler's time.
        .layer(DeadlineLayer::new(Duration::from_secs(2)))
        .layer(CatchPanicLayer)
        .service_fn(|message: Message| async move {
            let Some((count, what)) = parse(&message.record) else {
                return Err(HandlerError::reject("this is no order"));
            };
            let customer = String::from_utf8_lossy(&message.record.key);
            tracing::info!(%customer, count, what, "billed");
            Ok(())
        })
}

/// Books what was ordered, all of a batch at once. What is no order is none of its business.
fn stock() -> impl BatchHandler {
    ServiceBuilder::new().layer(MetricsLayer::new("stock")).layer(CatchPanicLayer).service_fn(
        |batch: Batch| async move {
            let taken: u32 = batch.records.iter().filter_map(parse).map(|(count, _)| count).sum();
            tracing::info!(records = batch.records.len(), taken, "booked");
            Ok::<_, HandlerError>(Outcome::default())
        },
    )
}

/// Writes down what has happened.
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
        // The topic may be made only now, and brokers may be away: the same order again.
        while let Err(error) = producer.send(record.clone()).await {
            tracing::warn!(%error, "order not taken, trying again");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    if orders > 0 {
        tracing::info!(orders, "all orders are placed");
    }
}
