//! A run of senders and receivers: connect, send, wait for the rest, read back, compare.

use super::{
    ledger::{Counters, Seen},
    pacer::{Pacer, Schedule},
    process::{self, Processes},
    receiver::{self, Receiver},
    report::{Outcome, Totals},
    run::Run,
    sender::{Drive, Pace, Sender},
    servers::Servers,
    users::{self, LoadUser},
};
use crate::args::LoadOptions;
use anyhow::{Context as _, Result, bail};
use client::{Connection, Error};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Longest wait after the end of sending for the last acknowledgement, and then without progress for the last message.
const GRACE: Duration = Duration::from_secs(30);
/// Conversations read back at a time.
const READERS: usize = 8;

/// A conversation with one sender.
pub(super) struct Conversation {
    pub(super) id: String,
    pub(super) sender: LoadUser,
    pub(super) receivers: Vec<LoadUser>,
}

/// The parameters of a run.
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) conversations: Vec<Conversation>,
    pub(super) pace: Pace,
    pub(super) options: LoadOptions,
}

/// The messages of a conversation.
struct Tally {
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
    let tallies = receive(&run, &conversations, receiving, &stop, &mut receivers);
    let before = (processes.cpu_seconds(), process::own_cpu_seconds());
    let mut senders = JoinSet::new();
    let _pacer = send(&run, &conversations, &tallies, pace, &options, sending, &mut senders)?;

    let acked_in_time = progress(&run, options.seconds, &mut senders).await?;
    finish(&mut senders).await?;
    let fanout: u64 = conversations.first().map_or(1, |conversation| conversation.receivers.len() as u64);
    wait_for_rest(&run, fanout, &mut receivers).await?;
    let after = (processes.cpu_seconds(), process::own_cpu_seconds());
    stop.cancel();
    while let Some(ended) = receivers.join_next().await {
        ended.context("a receiver panicked")?.context("a receiver failed")?;
    }

    let stored = read_back(&run, &conversations).await?;
    let mut totals = compare(&tallies, &stored);
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
        ..Outcome::default()
    })
}

fn receive(
    run: &Rc<Run>,
    conversations: &[Conversation],
    connections: Vec<Connection>,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Vec<Tally> {
    let mut connections = connections.into_iter();
    let mut tallies = Vec::with_capacity(conversations.len());
    for conversation in conversations {
        let mut tally = Tally { acked: Rc::default(), seen: Vec::new() };
        for (user, connection) in conversation.receivers.iter().zip(connections.by_ref()) {
            let seen = Rc::<RefCell<Seen>>::default();
            let receiver =
                Receiver::new(run.clone(), user.clone(), conversation.id.clone(), seen.clone(), stop.clone());
            tasks.spawn_local(receiver.run(connection));
            tally.seen.push(seen);
        }
        tallies.push(tally);
    }
    tallies
}

fn send(
    run: &Rc<Run>,
    conversations: &[Conversation],
    tallies: &[Tally],
    pace: Pace,
    options: &LoadOptions,
    connections: Vec<Connection>,
    tasks: &mut JoinSet<Result<(), Error>>,
) -> Result<Option<Pacer>> {
    let mut notifies = Vec::new();
    for (index, ((conversation, tally), connection)) in
        conversations.iter().zip(tallies).zip(connections).enumerate()
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
        let sender = Sender::new(run.clone(), index, user, id, drive, tally.acked.clone());
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

/// Waits for the end of sending; returns the number of acknowledgements until then.
async fn progress(run: &Run, seconds: u32, senders: &mut JoinSet<Result<(), Error>>) -> Result<u64> {
    let bar = users::bar("seconds", seconds.into());
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    let end = tokio::time::sleep_until((run.start + Duration::from_nanos(run.until)).into());
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = tick.tick() => bar.set_position(run.now() / 1_000_000_000),
            Some(ended) = senders.join_next() => ended.context("a sender panicked")?.context("a sender failed")?,
        }
    }
    bar.finish_and_clear();
    Ok(run.acks.borrow().count())
}

/// Waits for outstanding acknowledgements. The server has guaranteed nothing about messages that stay without one.
async fn finish(senders: &mut JoinSet<Result<(), Error>>) -> Result<()> {
    let all = async {
        while let Some(ended) = senders.join_next().await {
            ended.context("a sender panicked")?.context("a sender failed")?;
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

/// Waits until all acknowledged messages are received, or until no more arrive.
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
            ended.context("a receiver panicked")?.context("a receiver failed")?;
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
        .context("cannot read back the stored messages");
    bar.finish_and_clear();
    stored
}

fn compare(tallies: &[Tally], stored: &[Seen]) -> Totals {
    let mut totals = Totals::default();
    for (tally, stored) in tallies.iter().zip(stored) {
        let acked = tally.acked.borrow();
        totals.acked += acked.len();
        totals.stored += stored.counters.len();
        totals.duplicated += stored.duplicated;
        totals.out_of_order += stored.out_of_order;
        for seen in &tally.seen {
            let seen = seen.borrow();
            totals.received += seen.counters.len();
            totals.duplicated += seen.duplicated;
            totals.out_of_order += seen.out_of_order;
            totals.lost += acked.missing(&seen.counters, &stored.counters);
        }
    }
    totals
}
