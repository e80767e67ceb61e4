//! Measures saving: rows per second, and CPU seconds of this process per million rows (which are microseconds per row).
//!
//! ```text
//! cargo run --release -p db-service --example save -- DIR             # the embedded store in a new folder under DIR
//! cargo run --release -p db-service --example save -- HOST:PORT       # a db-service that is running
//! ```
//! More arguments: rows per batch size (100000), conversations (100), batch sizes (1,10,100,1000).
#![allow(clippy::print_stdout, reason = "this is what it is for")]

use abi::{
    Channel,
    channel::Caller,
    config::Config,
    ids,
    v1::{Entry, Message, SaveRequest, db_service_client::DbServiceClient, entry::Content, message::Body},
};
use anyhow::Context as _;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tonic::service::Routes;
use utils::{discovery::Instances, grpc};

/// Kernel's unit of CPU times in `/proc`, the same on all machines of today.
const TICKS_PER_SECOND: f64 = 100.0;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let target = args.next().context("name a folder, or the host:port of a db-service")?;
    let rows: usize = args.next().map_or(Ok(100_000), |text| text.parse())?;
    let conversations: usize = args.next().map_or(Ok(100), |text| text.parse())?;
    let sizes = args.next().unwrap_or_else(|| "1,10,100,1000".to_owned());
    println!("{:>6} {:>10} {:>14}", "batch", "rows/s", "CPU-s/million");
    for batch in sizes.split(',') {
        let batch: usize = batch.parse()?;
        // Single rows are slow; they need not be as many.
        let rows = rows.min(batch * 10_000).max(batch);
        let mut client = DbServiceClient::new(Caller::new(channel(&target, batch)?));
        let batches = batches(rows, batch, conversations);
        let (begun, cpu) = (Instant::now(), cpu_seconds()?);
        for entries in batches {
            client.save(SaveRequest { entries }).await?;
        }
        let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
        #[expect(clippy::cast_precision_loss, reason = "a few million at most")]
        let rows = rows as f64;
        println!("{batch:>6} {:>10.0} {:>14.1}", rows / took, cpu / rows * 1e6);
    }
    Ok(())
}

fn channel(target: &str, batch: usize) -> anyhow::Result<Channel> {
    if target.contains(':') {
        return Ok(grpc::balanced(
            "db-service",
            Instances::fixed([target.to_owned()]),
            grpc::Options::default(),
        ));
    }
    let folder = Path::new(target).join(format!("{batch}-{}", std::process::id()));
    let server = db_service::embedded(&folder, &Config::default())?;
    Ok(grpc::local(Routes::new(server), Duration::from_secs(10)))
}

/// All messages, made before the clock runs: ids with a time in front, as clients make them.
fn batches(rows: usize, batch: usize, conversations: usize) -> Vec<Vec<Entry>> {
    let entry = |n: usize| {
        let conversation = format!("d:alice-{}:bob", n % conversations);
        let client_msg_id = uuid::Uuid::now_v7().to_string();
        Entry {
            app: abi::DEFAULT_APP.into(),
            message_id: ids::message(abi::DEFAULT_APP, &conversation, "bob", &client_msg_id),
            conversation,
            sender: "bob".into(),
            sender_device: "phone".into(),
            client_msg_id,
            sent_at_ms: 1_700_000_000_000,
            content: Some(Content::Message(Message {
                content_type: String::new(),
                body: Some(Body::Text("x".repeat(64))),
            })),
            ..Entry::default()
        }
    };
    let all: Vec<_> = (0..rows).map(entry).collect();
    all.chunks(batch).map(<[_]>::to_vec).collect()
}

/// CPU time of this process and all its threads.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may hold anything; what follows is separated by single spaces.
    let fields: Vec<_> = stat.rsplit_once(')').context("/proc/self/stat")?.1.split(' ').collect();
    let ticks = |field: usize| {
        fields.get(field).context("/proc/self/stat")?.parse::<f64>().map_err(anyhow::Error::from)
    };
    Ok((ticks(12)? + ticks(13)?) / TICKS_PER_SECOND)
}
