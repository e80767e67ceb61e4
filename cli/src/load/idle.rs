//! Idle connections: how fast they open, and how much memory and CPU they use.

use super::{
    pages::Pages,
    process::{self, Processes},
    reconnects::Reconnects,
    report::{Figure, Outcome},
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

/// Open files of this process besides its connections.
const OTHER_FILES: u64 = 64;

/// Registers users, opens their connections, holds them, and measures.
pub(super) async fn run(
    users: &Users,
    connections: usize,
    page: bool,
    options: &LoadOptions,
) -> Result<Outcome> {
    check_open_files(connections as u64)?;
    let processes = Processes::new(&options.server_pid)?;
    let began = Instant::now();
    let accounts = users.register(connections).await?;
    let logins_per_second = connections as f64 / began.elapsed().as_secs_f64();

    // Open one connection before measuring: one-time allocations of the server are not part of the cost of a connection.
    let mut first = accounts[0].connect(users.servers(), None).await?;
    let pages = match page {
        true => Some(Pages::fill(users, &accounts, &mut first).await?),
        false => None,
    };
    let bytes_before = processes.resident_bytes();
    let began = Instant::now();
    let mut rest = users::connect_all(users.servers(), accounts[1..].iter()).await?;
    let connects_per_second = rest.len() as f64 / began.elapsed().as_secs_f64();
    if let Some(pages) = &pages {
        for connection in &mut rest {
            pages.fetch(connection).await?;
        }
    }

    let cpu_before = processes.cpu_seconds();
    let seconds = f64::from(options.seconds);
    let connected = accounts.iter().cloned().zip([first].into_iter().chain(rest));
    let held = hold_all(users.servers(), connected, options.seconds, &processes).await?;
    let reconnects = held.counts.reconnects.borrow();
    let dropped = held.counts.dropped.get();
    let mut figures = vec![
        Figure::count("dropped", "dropped", dropped),
        Figure::count("reconnects", "reconnects", reconnects.total()),
        Figure::count("most reconnects in 1 s", "most_reconnects_in_a_second", reconnects.most_in_a_second()),
        Figure::new("log-ins per second", "logins_per_second", logins_per_second, 0),
        Figure::new("connects per second", "connects_per_second", connects_per_second, 0),
    ];
    if let Some((before, after)) = bytes_before.zip(held.bytes) {
        let bytes = after.saturating_sub(before) / (connections as u64 - 1).max(1);
        figures.push(Figure::count("server bytes per connection", "server_bytes_per_connection", bytes));
    }
    if let Some((before, after)) = cpu_before.zip(held.cpu_seconds) {
        let percent = (after - before).max(0.0) / seconds * 100.0;
        figures.push(Figure::new("server CPU %", "server_cpu_percent", percent, 1));
    }
    Ok(Outcome {
        load: "idle",
        connections: connections as u64,
        seconds,
        dropped,
        figures,
        ..Outcome::default()
    })
}

fn check_open_files(connections: u64) -> Result<()> {
    if let Some(limit) = process::max_open_files()
        && connections + OTHER_FILES > limit
    {
        bail!(
            "{connections} connections need as many open files, but the limit is {limit}; raise it with `ulimit -n`"
        );
    }
    Ok(())
}

/// The state after the connections were held.
struct Held {
    counts: Rc<Counts>,
    cpu_seconds: Option<f64>,
    bytes: Option<u64>,
}

/// Holds all connections for some seconds.
async fn hold_all(
    servers: &Servers,
    connected: impl Iterator<Item = (LoadUser, Connection)>,
    seconds: u32,
    processes: &Processes,
) -> Result<Held> {
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let counts = Rc::<Counts>::default();
    for (user, connection) in connected {
        let device = Device { user, servers: servers.clone(), counts: counts.clone() };
        tasks.spawn_local(device.run(connection, stop.clone()));
    }
    let bar = users::bar("seconds", seconds.into());
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (cpu_seconds, bytes) = (processes.cpu_seconds(), processes.resident_bytes());
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a device panicked")?.context("a device failed")?;
    }
    Ok(Held { counts, cpu_seconds, bytes })
}

/// Counters of all devices of a run.
#[derive(Default)]
struct Counts {
    dropped: Cell<u64>,
    reconnects: RefCell<Reconnects>,
}

/// A device that sends only heartbeats.
struct Device {
    user: LoadUser,
    servers: Servers,
    counts: Rc<Counts>,
}

impl Device {
    /// Keeps a connection open, and reconnects when it ends.
    ///
    /// # Errors
    /// The server is unreachable for too long, or refuses the user.
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

/// Sends heartbeats until `stop`, or until the connection ends.
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
