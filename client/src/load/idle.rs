//! Connections that do nothing: how fast they open, and what they cost.

use super::{
    process::{self, Processes},
    report::{Idle, Latency, Outcome},
    users::{self, Users},
};
use crate::{Connection, Error, cli::LoadOptions, codec, connection::HELLO_ID};
use abi::v1::{Ping, client_frame};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};
use tokio::{task::JoinSet, time::interval_at};
use tokio_util::sync::CancellationToken;

/// Files that a process has open besides its connections.
const OTHER_FILES: u64 = 64;

/// Registers, opens, holds and measures.
pub(super) async fn run(users: &Users, connections: usize, options: &LoadOptions) -> Result<Outcome> {
    if let Some(most) = process::max_open_files()
        && (connections as u64) + OTHER_FILES > most
    {
        bail!("{connections} connections need as many open files, and {most} are allowed: use `ulimit -n`");
    }
    let processes = Processes::new(&options.server_pid)?;
    let began = Instant::now();
    let users_here = users.register(connections).await?;
    let logins_per_second = connections as f64 / began.elapsed().as_secs_f64();

    // One connection first: what the server makes once is not the price of a connection.
    let first = users_here[0].connect(users.servers(), None).await?;
    let before = processes.resident_bytes();
    let began = Instant::now();
    let rest = users::connect_all(users.servers(), users_here[1..].iter()).await?;
    let connects_per_second = rest.len() as f64 / began.elapsed().as_secs_f64();

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for connection in rest.into_iter().chain([first]) {
        tasks.spawn_local(hold(connection, stop.clone()));
    }
    let cpu_before = processes.cpu_seconds();
    let bar = users::bar("seconds", options.seconds.into());
    for _ in 0..options.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (cpu_after, after) = (processes.cpu_seconds(), processes.resident_bytes());
    stop.cancel();
    let mut dropped = 0;
    while let Some(ended) = tasks.join_next().await {
        dropped += u64::from(!matches!(ended, Ok(Ok(()))));
    }
    let seconds = f64::from(options.seconds);
    Ok(Outcome {
        load: "idle",
        connections: connections as u64,
        seconds,
        acks_per_second: 0.0,
        deliveries_per_second: 0.0,
        ack: Latency::default(),
        receive: Latency::default(),
        longest_pause: Duration::ZERO,
        server_cpu_seconds_per_million: None,
        client_cpu_seconds_per_million: None,
        totals: None,
        idle: Some(Idle {
            dropped,
            logins_per_second,
            connects_per_second,
            server_bytes_per_connection: before
                .zip(after)
                .map(|(before, after)| after.saturating_sub(before) / (connections as u64 - 1).max(1)),
            server_cpu_percent: cpu_before
                .zip(cpu_after)
                .map(|(before, after)| (after - before).max(0.0) / seconds * 100.0),
        }),
    })
}

/// Keeps a connection as a device does that has nothing to say.
async fn hold(mut connection: Connection, stop: CancellationToken) -> Result<(), Error> {
    let heartbeat = Duration::from_millis(connection.welcome.heartbeat_ms.max(100).into());
    let first = heartbeat.mul_f64(rand::random_range(0.1..1.0));
    let mut beat = interval_at(tokio::time::Instant::now() + first, heartbeat);
    loop {
        tokio::select! {
            bytes = connection.next_bytes() => drop(bytes?),
            _ = beat.tick() => {
                connection.feed(codec::encode(HELLO_ID + 1, client_frame::Frame::Ping(Ping {}))).await?;
                connection.flush().await?;
            }
            () = stop.cancelled() => {
                connection.close().await;
                return Ok(());
            }
        }
    }
}
