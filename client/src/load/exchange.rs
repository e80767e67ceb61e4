//! One run of senders and receivers: open, send, wait for the rest, read back, compare.

use super::{
    LoadUser,
    ledger::{Counters, Seen},
    pacer::{Pacer, Schedule},
    process::{self, Processes},
    receiver::{self, Receiver},
    reconnects::Reconnects,
    report::{Latency, Outcome, Totals},
    sender::{Drive, Pace, Sender},
    servers::Servers,
    users,
};
use crate::{Connection, Error, cli::LoadOptions};
use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long the rest may take: from the end of sending to the last acknowledgement, and without any progress to the last
/// message.
const GRACE: Duration = Duration::from_secs(30);
/// Conversations that are read back at a time.
const READERS: usize = 8;

/// A conversation with one sender.
pub(super) struct Conversation {
    pub(super) id: String,
    pub(super) sender: LoadUser,
    pub(super) receivers: Vec<LoadUser>,
}

/// What to do.
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) conversations: Vec<Conversation>,
    pub(super) pace: Pace,
    pub(super) options: LoadOptions,
}

/// What all connections of a run share. One thread runs them all.
pub(super) struct Run {
    pub(super) servers: Servers,
    /// Size of a body.
    pub(super) body: usize,
    /// When sending ends, in nanoseconds of the run.
    pub(super) until: u64,
    start: Instant,
    start_unix_ms: u64,
    random: [u8; 4],
    pub(super) sent: Cell<u64>,
    pub(super) refused: Cell<u64>,
    reconnects: RefCell<Reconnects>,
    /// The longest time that a sender was without an acknowledgement while it had something to send, in nanoseconds.
    longest_pause: Cell<u64>,
    acks: RefCell<Latency>,
    receives: RefCell<Latency>,
    last_received: Cell<u64>,
}

impl Run {
    fn new(servers: &Servers, options: &LoadOptions) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            servers: servers.clone(),
            body: options.body as usize,
            until: u64::from(options.seconds) * 1_000_000_000,
            start: Instant::now(),
            start_unix_ms: u64::try_from(now.as_millis()).unwrap_or(0),
            random: rand::random(),
            sent: Cell::default(),
            refused: Cell::default(),
            reconnects: RefCell::default(),
            longest_pause: Cell::default(),
            acks: RefCell::default(),
            receives: RefCell::default(),
            last_received: Cell::default(),
        }
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The id of a message: a UUIDv7 with the time at which it was to be sent, the same in every attempt.
    pub(super) fn message_uuid(&self, sender: usize, counter: u64, intended: u64) -> uuid::Uuid {
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&self.random);
        bytes[4..6].copy_from_slice(&(sender as u16).to_be_bytes());
        bytes[6..].copy_from_slice(&(counter as u32).to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(self.start_unix_ms + intended / 1_000_000, &bytes)
            .into_uuid()
    }

    /// Counts an acknowledgement; gives the time.
    pub(super) fn acked(&self, intended: u64) -> u64 {
        let now = self.now();
        self.acks.borrow_mut().record(now.saturating_sub(intended));
        now
    }

    pub(super) fn received(&self, intended: u64) {
        let now = self.now();
        self.last_received.set(now);
        self.receives.borrow_mut().record(now.saturating_sub(intended));
    }

    pub(super) fn paused(&self, nanos: u64) {
        self.longest_pause.set(self.longest_pause.get().max(nanos));
    }

    pub(super) fn count_reconnect(&self) {
        self.reconnects.borrow_mut().count(Instant::now());
    }
}

/// What is known of a conversation.
struct Account {
    acked: Rc<RefCell<Counters>>,
    seen: Vec<Rc<RefCell<Seen>>>,
}

/// Runs a load.
pub(super) async fn run(servers: &Servers, load: Load) -> Result<Outcome> {
    let Load { name, conversations, pace, options } = load;
    let processes = Processes::new(&options.server_pid)?;
    let sending =
        users::connect_all(servers, conversations.iter().map(|conversation| &conversation.sender)).await?;
    let receiving =
        users::connect_all(servers, conversations.iter().flat_map(|conversation| &conversation.receivers))
            .await?;
    let connections = sending.len() + receiving.len();

    let run = Rc::new(Run::new(servers, &options));
    let stop = CancellationToken::new();
    let mut receivers = JoinSet::new();
    let accounts = receive(&run, &conversations, receiving, &stop, &mut receivers);
    let before = (processes.cpu_seconds(), process::own_cpu_seconds());
    let mut senders = JoinSet::new();
    let _pacer = send(&run, &conversations, &accounts, pace, &options, sending, &mut senders)?;

    let acked_in_time = progress(&run, options.seconds, &mut senders).await?;
    finish(&mut senders).await?;
    let fanout: u64 = conversations.first().map_or(1, |conversation| conversation.receivers.len() as u64);
    wait_for_rest(&run, fanout, &mut receivers).await?;
    let after = (processes.cpu_seconds(), process::own_cpu_seconds());
    stop.cancel();
    while let Some(ended) = receivers.join_next().await {
        ended.context("a receiver died")?.context("a receiver was turned away")?;
    }

    let stored = read_back(&run, &conversations).await?;
    let mut totals = compare(&accounts, &stored);
    totals.sent = run.sent.get();
    let due = match pace {
        Pace::Window(_) => totals.sent,
        Pace::Rate(rate) => u64::from(rate) * u64::from(options.seconds),
    };
    totals.failed = due.saturating_sub(totals.acked);
    totals.refused = run.refused.get();
    totals.reconnects = run.reconnects.borrow().total();
    totals.most_reconnects_in_a_second = run.reconnects.borrow().most_in_a_second();
    let received_in = Duration::from_nanos(run.last_received.get()).as_secs_f64();
    let millions = totals.acked as f64 / 1e6;
    let per_million = |seconds: f64| if millions > 0.0 { seconds / millions } else { 0.0 };
    Ok(Outcome {
        load: name,
        connections: connections as u64,
        seconds: f64::from(options.seconds),
        acks_per_second: acked_in_time as f64 / f64::from(options.seconds),
        deliveries_per_second: if received_in > 0.0 { totals.received as f64 / received_in } else { 0.0 },
        ack: run.acks.take(),
        receive: run.receives.take(),
        longest_pause: Duration::from_nanos(run.longest_pause.get()),
        server_cpu_seconds_per_million: before.0.zip(after.0).map(|(b, a)| per_million((a - b).max(0.0))),
        client_cpu_seconds_per_million: Some(per_million(after.1 - before.1)),
        totals: Some(totals),
        idle: None,
    })
}

fn receive(
    run: &Rc<Run>,
    conversations: &[Conversation],
    connections: Vec<Connection>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Vec<Account> {
    let mut connections = connections.into_iter();
    let mut accounts = Vec::with_capacity(conversations.len());
    for conversation in conversations {
        let mut account = Account { acked: Rc::default(), seen: Vec::new() };
        for (user, connection) in conversation.receivers.iter().zip(connections.by_ref()) {
            let seen = Rc::<RefCell<Seen>>::default();
            let receiver =
                Receiver::new(run.clone(), user.clone(), conversation.id.clone(), seen.clone(), stop.clone());
            tasks.spawn_local(receiver.run(connection));
            account.seen.push(seen);
        }
        accounts.push(account);
    }
    accounts
}

fn send(
    run: &Rc<Run>,
    conversations: &[Conversation],
    accounts: &[Account],
    pace: Pace,
    options: &LoadOptions,
    connections: Vec<Connection>,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Result<Option<Pacer>> {
    let mut notifies = Vec::new();
    for (index, ((conversation, account), connection)) in
        conversations.iter().zip(accounts).zip(connections).enumerate()
    {
        let drive = match pace {
            Pace::Window(window) => Drive::Window(window),
            Pace::Rate(rate) => {
                let notify = Arc::new(Notify::new());
                notifies.push(notify.clone());
                Drive::Schedule(Schedule::new(rate, conversations.len(), options.seconds), notify)
            }
        };
        let (user, id) = (conversation.sender.clone(), conversation.id.clone());
        let sender = Sender::new(run.clone(), index, user, id, drive, account.acked.clone());
        tasks.spawn_local(sender.run(connection));
    }
    match pace {
        Pace::Window(_) => Ok(None),
        Pace::Rate(rate) => {
            let schedule = Schedule::new(rate, conversations.len(), options.seconds);
            Ok(Some(Pacer::start(schedule, run.start, notifies).context("cannot start a thread")?))
        }
    }
}

/// Waits for the end of sending; gives how many were acknowledged by then.
async fn progress(run: &Run, seconds: u32, senders: &mut JoinSet<Result<(), Error>>) -> Result<u64> {
    let bar = users::bar("seconds", seconds.into());
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let end = tokio::time::sleep_until((run.start + Duration::from_nanos(run.until)).into());
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = tick.tick() => bar.set_position(run.now() / 1_000_000_000),
            Some(ended) = senders.join_next() => ended.context("a sender died")?.context("a sender was turned away")?,
        }
    }
    bar.finish_and_clear();
    Ok(run.acks.borrow().count())
}

/// Waits for the acknowledgements that are on their way; what stays without one was never promised.
async fn finish(senders: &mut JoinSet<Result<(), Error>>) -> Result<()> {
    let all = async {
        while let Some(ended) = senders.join_next().await {
            ended.context("a sender died")?.context("a sender was turned away")?;
        }
        Ok(())
    };
    match tokio::time::timeout(GRACE, all).await {
        Ok(result) => result,
        Err(_) => {
            senders.shutdown().await;
            Ok(())
        }
    }
}

/// Waits until all that was acknowledged is received, or nothing comes any more.
async fn wait_for_rest(run: &Run, receivers: u64, tasks: &mut JoinSet<Result<(), Error>>) -> Result<()> {
    let mut last = (0, Instant::now());
    loop {
        let received = run.receives.borrow().count();
        if received >= run.acks.borrow().count() * receivers {
            return Ok(());
        }
        if received > last.0 {
            last = (received, Instant::now());
        }
        if last.1.elapsed() > GRACE {
            return Ok(());
        }
        if let Some(ended) = tasks.try_join_next() {
            ended.context("a receiver died")?.context("a receiver was turned away")?;
            bail!("a receiver ended early");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn read_back(run: &Run, conversations: &[Conversation]) -> Result<Vec<Seen>> {
    let bar = users::bar("reading back", conversations.len() as u64);
    let stored = stream::iter(conversations)
        .map(|conversation| {
            let reader = conversation.receivers.first().unwrap_or(&conversation.sender);
            receiver::read_back(run, reader, &conversation.id)
        })
        .buffered(READERS)
        .inspect(|_| bar.inc(1))
        .try_collect()
        .await
        .context("cannot read back what was stored");
    bar.finish_and_clear();
    stored
}

fn compare(accounts: &[Account], stored: &[Seen]) -> Totals {
    let mut totals = Totals::default();
    for (account, stored) in accounts.iter().zip(stored) {
        let acked = account.acked.borrow();
        totals.acked += acked.len();
        totals.stored += stored.counters.len();
        totals.duplicated += stored.duplicated;
        totals.out_of_order += stored.out_of_order;
        for seen in &account.seen {
            let seen = seen.borrow();
            totals.received += seen.counters.len();
            totals.duplicated += seen.duplicated;
            totals.out_of_order += seen.out_of_order;
            totals.lost += acked.missing(&seen.counters, &stored.counters);
        }
    }
    totals
}
