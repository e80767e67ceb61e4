//! A device that catches up: all conversations of its user at first, then those that changed while it was away.

use super::{
    asks::{Size, ask},
    report::{Figure, Outcome},
    users::{LoadUser, Users},
};
use abi::{
    ids,
    v1::{Changes, GetChanges, ReceiverSeq, Send, client_frame::Frame as Ask, server_frame::Frame},
};
use anyhow::{Context as _, Result, bail};
use client::{Connection, codec, connection::HELLO_ID, new_client_msg_id};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Unacknowledged messages while the conversations are filled.
const IN_FLIGHT: u32 = 32;
/// Bytes of a message.
const BODY: usize = 64;
/// Pause before a refused message is sent again, and before a request for an entry that is not stored yet is repeated.
const PAUSE: Duration = Duration::from_millis(200);

/// The changes that a device received, and their cost.
struct CaughtUp {
    seq: Option<ReceiverSeq>,
    heads: usize,
    size: Size,
    took: Duration,
}

/// Fills the conversations, then measures a first device and one that was away.
pub(super) async fn run(users: &Users, conversations: u32, changed: u32) -> Result<Outcome> {
    let mut peers = users.register(1 + conversations as usize).await?;
    let user = peers.remove(0);
    let changing = &peers[..peers.len().min(changed as usize)];
    let mut connection = user.connect(users.servers(), None).await?;
    fill(&mut connection, &user, &peers).await?;
    // The last messages may not be stored yet.
    while catch_up(&mut connection, None).await?.heads < peers.len() {
        sleep(PAUSE).await;
    }
    connection.close().await;

    let mut device = user.connect(users.servers(), None).await?;
    let first = catch_up(&mut device, None).await?;
    device.close().await;

    let mut other = user.connect(users.servers(), None).await?;
    fill(&mut other, &user, changing).await?;
    while catch_up(&mut other, first.seq).await?.heads < changing.len() {
        sleep(PAUSE).await;
    }
    other.close().await;
    let mut device = user.connect(users.servers(), first.seq).await?;
    let later = catch_up(&mut device, first.seq).await?;
    device.close().await;

    let millis = |took: Duration| took.as_secs_f64() * 1_000.0;
    Ok(Outcome {
        load: "sync",
        connections: 1,
        figures: vec![
            Figure::count("conversations", "conversations", first.heads as u64),
            Figure::new("first sync, ms", "first_ms", millis(first.took), 1),
            Figure::count("first sync, frames", "first_frames", first.size.frames),
            Figure::count("first sync, bytes", "first_bytes", first.size.bytes),
            Figure::count("changed conversations", "changed", later.heads as u64),
            Figure::new("later sync, ms", "later_ms", millis(later.took), 1),
            Figure::count("later sync, frames", "later_frames", later.size.frames),
            Figure::count("later sync, bytes", "later_bytes", later.size.bytes),
        ],
        ..Outcome::default()
    })
}

/// Sends a message to each peer.
async fn fill(connection: &mut Connection, user: &LoadUser, peers: &[LoadUser]) -> Result<()> {
    let send = |peer: u32| Send {
        conversation: ids::direct(&user.name, &peers[peer as usize].name),
        client_msg_id: new_client_msg_id(),
        content: Some(client::text("x".repeat(BODY))),
        ..Send::default()
    };
    let (mut due, mut in_flight) = (0..u32::try_from(peers.len())?, 0);
    let mut again = Vec::new();
    loop {
        while in_flight < IN_FLIGHT
            && let Some(peer) = again.pop().or_else(|| due.next())
        {
            connection.feed(codec::encode(HELLO_ID + 1 + peer, Ask::Send(send(peer)))).await?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(());
        }
        connection.flush().await?;
        let frame = connection.next().await?;
        match frame.frame {
            Some(Frame::Ack(_)) => in_flight -= 1,
            Some(Frame::Error(error)) if error.code().is_retryable() => {
                in_flight -= 1;
                again.push(frame.id - HELLO_ID - 1);
                sleep(PAUSE).await;
            }
            Some(Frame::Error(error)) => bail!("{}", error.message),
            _ => {}
        }
    }
}

/// Reads all pages of the changes since `have`.
async fn catch_up(connection: &mut Connection, have: Option<ReceiverSeq>) -> Result<CaughtUp> {
    let began = Instant::now();
    let mut caught_up = CaughtUp { seq: None, heads: 0, size: Size::default(), took: Duration::ZERO };
    let mut cursor = String::new();
    for id in HELLO_ID + 1.. {
        let request = GetChanges { have, cursor, limit: abi::MAX_PAGE };
        let answer = ask(connection, id, Ask::Changes(request), &mut caught_up.size).await;
        let Frame::Changes(Changes { receiver_seq, heads, next, .. }) =
            answer.context("cannot read the changes")?
        else {
            bail!("the answer to `changes` is of another kind");
        };
        caught_up.seq = receiver_seq;
        caught_up.heads += heads.len();
        cursor = next;
        if cursor.is_empty() {
            break;
        }
    }
    Ok(CaughtUp { took: began.elapsed(), ..caught_up })
}
