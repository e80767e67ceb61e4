//! Connections that do nothing: how fast they open, and what they cost.

use super::{
    process::{self, Processes},
    reconnects::Reconnects,
    report::{Idle, Latency, Outcome},
    servers::Servers,
    users::{self, LoadUser, Users},
};
use crate::args::LoadOptions;
use abi::{
    error::ErrorCode,
    v1::{Ping, client_frame},
};
use anyhow::{Context as _, Result, bail};
use client::{Connection, Error, codec, connection::HELLO_ID};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};
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
    let counts = Rc::<Counts>::default();
    for (user, connection) in users_here.iter().zip([first].into_iter().chain(rest)) {
        let device = Device { user: user.clone(), servers: users.servers().clone(), counts: counts.clone() };
        tasks.spawn_local(device.run(connection, stop.clone()));
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
    while let Some(ended) = tasks.join_next().await {
        ended.context("a device died")?.context("a device was turned away")?;
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
            dropped: counts.dropped.get(),
            reconnects: counts.reconnects.borrow().total(),
            most_reconnects_in_a_second: counts.reconnects.borrow().most_in_a_second(),
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

/// What happened to all devices of a run.
#[derive(Default)]
struct Counts {
    dropped: Cell<u64>,
    reconnects: RefCell<Reconnects>,
}

/// A device that has nothing to say.
struct Device {
    user: LoadUser,
    servers: Servers,
    counts: Rc<Counts>,
}

impl Device {
    /// Keeps a connection, and connects again when it ends.
    ///
    /// # Errors
    /// A server that stays away, or does not let the user in.
    async fn run(self, mut connection: Connection, stop: CancellationToken) -> Result<(), Error> {
        while let Err(error) = hold(&mut connection, &stop).await {
            if error.code() != Some(ErrorCode::GoingAway) {
                self.counts.dropped.set(self.counts.dropped.get() + 1);
            }
            connection = tokio::select! {
                opened = self.user.connect(&self.servers, None) => opened?,
                () = stop.cancelled() => return Ok(()),
            };
            self.counts.reconnects.borrow_mut().count(Instant::now());
        }
        connection.close().await;
        Ok(())
    }
}

/// Keeps a connection until `stop`, or until it ends.
async fn hold(connection: &mut Connection, stop: &CancellationToken) -> Result<(), Error> {
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
            () = stop.cancelled() => return Ok(()),
        }
    }
}
