//! A device that is run by the SDK.

use super::{
    Order,
    book::{Book, Job},
    device::{Seat, Snapshots},
};
use abi::v1::{Ack, GetHeads};
use client::{Client, Error, Event, Events, Options, State};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{collections::BTreeMap, pin::pin, time::Duration};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::ledger::Seen;

/// How often it is noted what the device has.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait for an answer to a query.
const ANSWER: Duration = Duration::from_secs(10);

/// Messages without an outcome beyond which it takes no more.
const MOST_UNSENT: usize = 200;

/// What ended a life.
enum End {
    /// The run is over.
    Stopped,
    /// The program is started again, with a state.
    Restarted(State),
}

/// Runs the device until the run is over.
pub(super) async fn run(mut seat: Seat) {
    let mut state = State::default();
    let mut unsent = BTreeMap::new();
    let mut snapshots = Snapshots::new(seat.seed);
    loop {
        match live(&mut seat, state, &mut unsent, &mut snapshots).await {
            End::Stopped => break,
            End::Restarted(with) => state = with,
        }
    }
    for send in unsent.into_keys() {
        seat.book.given_up(send);
    }
}

async fn live(
    seat: &mut Seat,
    state: State,
    unsent: &mut BTreeMap<u32, Job>,
    snapshots: &mut Snapshots,
) -> End {
    let options = Options {
        max_pause: Duration::from_secs(2),
        answer_timeout: Duration::from_secs(10),
        queue: 256,
        ..Options::default()
    };
    seat.book.life(seat.id, &state);
    let (client, mut events) = Client::start(seat.server.clone(), seat.tokens.clone(), options, state);
    let stop = seat.stop.clone();
    let mut acks = FuturesUnordered::new();
    // What was begun in an earlier life, in its order.
    for job in unsent.values() {
        match enqueue(&client, job).await {
            Ok(sending) => acks.push(outcome(job.send, sending)),
            Err(_) => break,
        }
    }
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            event = events.next() => match event {
                // The SDK does not say whether an entry was pushed or asked for, so none counts as live.
                Some(Event::Entry(entry)) => seat.book.shown(seat.id, &entry, false),
                Some(Event::CaughtUp) => complete(seat, &client),
                Some(Event::Ended(error)) => {
                    seat.book.ended(seat.id, error.to_string());
                    sleep(Duration::from_secs(1)).await;
                    break End::Restarted(client.state());
                }
                Some(_) => {}
                None => break End::Restarted(client.state()),
            },
            Some((send, outcome)) = acks.next(), if !acks.is_empty() => settle(&seat.book, unsent, send, outcome),
            () = stop.cancelled() => break End::Stopped,
            Some(order) = seat.orders.recv(), if unsent.len() < MOST_UNSENT => match order {
                Order::Send(job) => {
                    if let Ok(sending) = enqueue(&client, &job).await {
                        acks.push(outcome(job.send, sending));
                    }
                    unsent.insert(job.send, job);
                }
                Order::Restart => break End::Restarted(snapshots.old(client.state())),
                Order::Doze(pause) => {
                    sleep(pause).await;
                    // What it was given meanwhile waited for it, and not for the system.
                    seat.book.excuse(seat.id);
                }
                Order::Copy(_) => {}
            },
            _ = look.tick() => {
                snapshots.keep(client.state());
                complete(seat, &client);
                if seat.book.is_closing() {
                    settled(seat, &client, &mut events).await;
                }
            }
        }
    };
    client.close().await;
    // Acknowledgements that had come are not forgotten.
    while let Some((send, outcome)) = acks.next().await {
        settle(&seat.book, unsent, send, outcome);
    }
    end
}

async fn enqueue(client: &Client, job: &Job) -> Result<client::Sending, Error> {
    let message = client::text(job.text.clone());
    client.enqueue(&job.conversation, message, Some(job.client_msg_id.clone())).await
}

async fn outcome(send: u32, sending: client::Sending) -> (u32, Result<Ack, Error>) {
    (send, sending.await)
}

fn settle(book: &Book, unsent: &mut BTreeMap<u32, Job>, send: u32, outcome: Result<Ack, Error>) {
    match outcome {
        Ok(ack) => {
            book.acked(send, &ack);
        }
        Err(Error::Server(fault)) => book.refused(send, fault.code.name(), false),
        // The client has ended: the next one tries again.
        Err(_) => return,
    }
    unsent.remove(&send);
}

/// Notes what the device believes to have.
fn complete(seat: &Seat, client: &Client) {
    if let Some(have) = client.state().have {
        seat.book.saw(seat.id, Seen::Complete { epoch: have.epoch, seq: have.seq, at: seat.book.now() });
    }
}

/// Notes whether the device has what the server's heads promise. Events go on meanwhile.
async fn settled(seat: &Seat, client: &Client, events: &mut Events) {
    let asked = seat.book.now();
    let mut heads = pin!(tokio::time::timeout(ANSWER, heads(client)));
    let heads = loop {
        tokio::select! {
            heads = &mut heads => break heads,
            event = events.next() => match event {
                Some(Event::Entry(entry)) => seat.book.shown(seat.id, &entry, false),
                Some(_) => {}
                None => return,
            },
        }
    };
    let Ok(Ok(heads)) = heads else { return };
    let positions = client.state().positions;
    let has =
        |(conversation, head): &(String, u64)| positions.get(conversation).copied().unwrap_or(0) >= *head;
    if heads.iter().all(has) {
        seat.book.settled(seat.id, asked);
    }
}

async fn heads(client: &Client) -> Result<Vec<(String, u64)>, Error> {
    let mut heads = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.heads(GetHeads { after, limit: abi::MAX_PAGE }).await?;
        heads.extend(page.heads.into_iter().map(|head| (head.conversation, head.conversation_seq)));
        match heads.last() {
            Some((last, _)) if page.more => after = last.clone(),
            _ => return Ok(heads),
        }
    }
}
