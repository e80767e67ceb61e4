//! A producer and a consumer that authenticate with SCRAM or PLAIN, optionally over TLS.
//!
//! Needs the cargo feature `ssl` and the headers of OpenSSL (`apt install libssl-dev pkg-config`):
//!
//! ```sh
//! cargo run -p kafka-runtime --features ssl --example scram -- \
//!   'kafka://alice:secret@127.0.0.1:9094?topics=greetings&group=scram&sasl.mechanism=SCRAM-SHA-512&partitions=1&replication=1'
//! ```
//!
//! For TLS add `&tls.ca=/path/of/ca.pem`. Keep passwords out of command lines: use `sasl.username=alice` and
//! `sasl.password=file:/path/of/password` instead. With a wrong password the start fails with an error. The embedded log has
//! no authentication: with `log:/tmp/scram?topics=greetings&group=scram` the same program runs without it.

use clap::Parser;
use kafka_runtime::{Address, HandlerError, Message, Producer, ProducerRecord, Runtime};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A producer and a consumer that authenticate.
#[derive(Parser)]
struct Options {
    /// Address with credentials
    address: Address,
    /// Number of records to produce
    #[arg(long, default_value_t = 5)]
    records: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    tracing_subscriber::fmt().with_ansi(is_terminal).init();
    // The address is printed without its password.
    tracing::info!(address = %options.address, "starting");
    let handler = tower::service_fn(|Message { record, .. }: Message| async move {
        let text = String::from_utf8_lossy(&record.payload);
        tracing::info!(partition = record.partition, offset = record.offset, %text, "received");
        Ok::<_, HandlerError>(())
    });
    let mut runtime = Runtime::new();
    let producer = runtime.producer(&options.address)?;
    let runtime = runtime.records("scram", &options.address, handler)?;

    let stop = CancellationToken::new();
    let running = runtime.run(stop.clone());
    let greeting = greet(producer.as_ref(), &options);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::pin!(running, greeting);
    let mut is_greeting = true;
    loop {
        tokio::select! {
            ended = &mut running => break Ok(ended?),
            () = &mut greeting, if is_greeting => is_greeting = false,
            _ = interrupt.recv() => stop.cancel(),
            _ = terminate.recv() => stop.cancel(),
        }
    }
}

async fn greet(producer: &dyn Producer, options: &Options) {
    let topic: Arc<str> = options.address.topics().first().map_or("", String::as_str).into();
    for n in 0..options.records {
        let record = ProducerRecord::new(Arc::clone(&topic), "key", format!("hello {n}"));
        // The topic may not exist yet and brokers may be unreachable, so retry the same record.
        while let Err(error) = producer.send(record.clone()).await {
            tracing::warn!(%error, "not delivered, trying again");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tracing::info!(n, "delivered");
    }
}
