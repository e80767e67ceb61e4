//! A group that reads: every member marks each message as read at once.

use super::{
    exchange::Conversation,
    process::Processes,
    report::{Figure, Outcome},
    servers::Servers,
    users,
};
use abi::v1::{Deliver, MarkRead, Send, client_frame::Frame as Ask, server_frame::Frame};
use anyhow::{Context as _, Result, bail};
use client::{Connection, codec, connection::HELLO_ID, new_client_msg_id};
use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

/// A message is over when no frame has arrived for this long.
const QUIET: Duration = Duration::from_secs(1);
/// Give up when a message is not read by all members within this time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Counters of all members.
#[derive(Default)]
struct Counts {
    /// Answers to the read marks.
    read: Cell<u64>,
    /// All frames from the server, except the welcomes and the acks.
    frames: Cell<u64>,
}

fn add(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// Sends the messages one after the other, and counts what reading them costs.
pub(super) async fn run(
    servers: &Servers,
    group: Conversation,
    messages: u32,
    server_pids: &[u32],
) -> Result<Outcome> {
    let processes = Processes::new(server_pids)?;
    let mut sender = users::connect_all(servers, [&group.sender].into_iter()).await?.remove(0);
    let connections = users::connect_all(servers, group.receivers.iter()).await?;
    let readers = connections.len() as u64;
    let (counts, stop, mut tasks) = (Rc::<Counts>::default(), CancellationToken::new(), JoinSet::new());
    for connection in connections {
        let member = member(connection, group.id.clone(), counts.clone(), stop.clone());
        tasks.spawn_local(member);
    }
    let before = processes.cpu_seconds();
    let mut took = Duration::ZERO;
    for message in 1..=u64::from(messages) {
        let began = Instant::now();
        send(&mut sender, &group.id, message).await?;
        let deadline = began + TIMEOUT;
        while counts.read.get() < readers * message {
            next_or_pause(&mut sender, &counts, Duration::from_millis(1)).await?;
            if Instant::now() > deadline {
                let read = counts.read.get();
                bail!(
                    "message {message} was not read by all members within {TIMEOUT:?}: {read} marks so far"
                );
            }
        }
        took += began.elapsed();
        while next_or_pause(&mut sender, &counts, QUIET).await? {}
    }
    let after = processes.cpu_seconds();
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("a member panicked")??;
    }
    let per_message = |value: f64| value / f64::from(messages);
    let mut figures = vec![
        Figure::count("messages", "messages", messages.into()),
        Figure::new("all have read, ms", "read_ms", per_message(took.as_secs_f64() * 1_000.0), 1),
        Figure::new("frames per message", "frames_per_message", per_message(counts.frames.get() as f64), 1),
    ];
    if let Some((before, after)) = before.zip(after) {
        let millis = per_message((after - before) * 1_000.0);
        figures.push(Figure::new("server CPU ms per message", "server_cpu_ms_per_message", millis, 1));
    }
    Ok(Outcome { load: "read", connections: readers + 1, figures, ..Outcome::default() })
}

async fn send(sender: &mut Connection, group: &str, message: u64) -> Result<()> {
    let send = Send {
        conversation: group.to_owned(),
        client_msg_id: new_client_msg_id(),
        content: Some(client::text(format!("message {message}"))),
        ..Send::default()
    };
    sender.feed(codec::encode(HELLO_ID + 1, Ask::Send(send))).await?;
    sender.flush().await?;
    Ok(())
}

/// Counts the next frame to the sender. Returns whether one arrived within the pause.
async fn next_or_pause(sender: &mut Connection, counts: &Counts, pause: Duration) -> Result<bool> {
    tokio::select! {
        frame = sender.next() => {
            match frame?.frame {
                Some(Frame::Error(error)) => bail!("{}", error.message),
                Some(Frame::Ack(_)) => {}
                _ => add(&counts.frames),
            }
            Ok(true)
        }
        () = sleep(pause) => Ok(false),
    }
}

/// Marks every message of the group as read.
async fn member(
    mut connection: Connection,
    group: String,
    counts: Rc<Counts>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        let frame = tokio::select! {
            frame = connection.next() => frame.context("a member's connection ended")?,
            () = stop.cancelled() => break,
        };
        add(&counts.frames);
        match frame.frame {
            Some(Frame::Deliver(Deliver { entries, .. })) => {
                let new = entries.iter().filter(|entry| entry.conversation == group);
                let Some(last) = new.map(|entry| entry.conversation_seq).max() else { continue };
                let read = MarkRead { conversation: group.clone(), conversation_seq: last };
                connection.feed(codec::encode(HELLO_ID + 1, Ask::Read(read))).await?;
                connection.flush().await?;
            }
            Some(Frame::Error(error)) => bail!("{}", error.message),
            _ if frame.id == HELLO_ID + 1 => add(&counts.read),
            _ => {}
        }
    }
    connection.close().await;
    Ok(())
}
