//! A device that speaks the protocol by hand, as docs/protocol.md tells it, independently of the SDK. It also does what
//! the SDK never does: it sends again what was acknowledged, sends what another device of its user is sending, has
//! several messages on the wire, and asks at once for what it was just told of.

mod catch_up;
mod lanes;
mod marks;

use super::{
    Order,
    book::Job,
    device::{Seat, Snapshots},
};
use crate::ledger::{self, Id, Instead, Seen};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{
        Deliver, Entry, GetHeads, GetHistory, MarkRead, Message, Ping, ReceiverSeq, Send,
        client_frame::Frame as Ask, message::Body, server_frame::Frame,
    },
};
use catch_up::{CatchUp, Want};
use client::{Connection, Error, Recovery, codec, tokens::TokenSource as _};
use lanes::Lanes;
use marks::Marks;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Chance that an acknowledged message is sent once more.
const AGAIN: f64 = 0.03;
/// Chance that a message is sent by another device of the user as well.
const COPY: f64 = 0.02;
/// Chance that a live entry is looked up at once.
const LOOK_UP: f64 = 0.02;
/// Chance that a live entry is marked as read.
const READ: f64 = 0.01;
/// Every so many devices have several messages of a conversation on the wire.
const PIPELINES: u32 = 3;
/// How many those are.
const DEPTH: usize = 4;
/// Every so many devices send all of them again at once after the connection was lost.
const TOGETHER: u32 = 2 * PIPELINES;
/// An answer that did not come by then will not.
const ANSWER: Duration = Duration::from_secs(10);

/// A `hello` without an answer may be found by the server for so long.
const LATE: Duration = Duration::from_secs(120);

/// What was asked.
enum Asked {
    Send(Job),
    /// Outside of the order: a message that was sent before.
    Again(Job),
    /// With the read positions that had been answered by then.
    Heads(Marks),
    History(String),
    /// To mark as read up to there.
    Read(String, u64),
    /// An entry that was just delivered.
    LookUp(LookUp),
    Ping {
        closing: bool,
        at: u32,
    },
}

/// An entry to be read.
#[derive(Debug)]
struct LookUp {
    conversation: String,
    conversation_seq: u64,
    message_id: String,
}

/// Why a connection is left.
enum Left {
    Stopped,
    Restart,
    Lost(Option<Error>),
}

struct Device {
    seat: Seat,
    random: StdRng,
    lanes: Lanes,
    catch_up: CatchUp,
    marks: Marks,
    /// Messages to send once more, and when.
    again: VecDeque<(Instant, Job)>,
    snapshots: Snapshots,
    /// When it gave up a `hello` that had no answer.
    given_up: Option<Instant>,
}

/// Runs the device until the run is over.
pub(super) async fn run(seat: Seat) {
    let depth = if seat.id.is_multiple_of(PIPELINES) && !seat.probes { DEPTH } else { 1 };
    let mut device = Device {
        random: StdRng::seed_from_u64(seat.seed),
        lanes: Lanes::new(depth, seat.id.is_multiple_of(TOGETHER)),
        catch_up: CatchUp::default(),
        marks: Marks::default(),
        again: VecDeque::new(),
        snapshots: Snapshots::new(seat.seed),
        given_up: None,
        seat,
    };
    device.seat.book.life(device.seat.id, &device.catch_up.state());
    device.live().await;
    for send in device.lanes.unsent() {
        device.seat.book.given_up(send);
    }
}

impl Device {
    async fn live(&mut self) {
        let mut expired: Option<String> = None;
        loop {
            let left = match self.open(&mut expired).await {
                Ok(connection) => self.session(connection).await,
                Err(error) => {
                    if matches!(error, Error::Timeout { .. } | Error::Lost(_)) {
                        self.given_up = Some(Instant::now());
                    }
                    Left::Lost(Some(error))
                }
            };
            self.lanes.reset();
            self.catch_up.disconnected();
            match left {
                Left::Stopped => return,
                Left::Restart => self.restart(),
                Left::Lost(error) => self.pause(error).await,
            }
            if self.seat.stop.is_cancelled() {
                return;
            }
        }
    }

    /// The program is started again, with a state that was kept.
    fn restart(&mut self) {
        let state = self.snapshots.old(self.catch_up.state());
        self.seat.book.life(self.seat.id, &state);
        self.catch_up = CatchUp::new(state);
    }

    /// Whether the device may have been replaced by a `hello` of its own that it had given up.
    fn by_itself(&mut self) -> bool {
        self.given_up.take().is_some_and(|at| at.elapsed() < LATE)
    }

    /// Waits before it connects again.
    async fn pause(&mut self, error: Option<Error>) {
        if let Some(error) = error
            && error.recovery() == Recovery::Stop
            && !(error.code() == Some(ErrorCode::Replaced) && self.by_itself())
        {
            self.seat.book.ended(self.seat.id, error.to_string());
        }
        let longest = if self.seat.probes { 200 } else { 1_500 };
        sleep(Duration::from_millis(self.random.random_range(50..longest))).await;
        while let Ok(order) = self.seat.orders.try_recv() {
            if self.order(order) {
                self.restart();
            }
        }
    }

    async fn open(&self, expired: &mut Option<String>) -> Result<Connection, Error> {
        let patience = if self.seat.probes { Duration::from_secs(2) } else { ANSWER };
        let opening = async {
            let token = self.seat.tokens.token(expired.as_deref()).await?;
            let opened = Connection::open(&self.seat.server, &token, self.catch_up.have()).await;
            *expired = None;
            if let Err(error) = &opened
                && error.recovery() == Recovery::Refresh
            {
                *expired = Some(token);
            }
            opened
        };
        timeout(patience, opening).await.unwrap_or(Err(Error::Timeout { what: "connecting" }))
    }

    /// Takes an order; gives whether it ends the life.
    fn order(&mut self, order: Order) -> bool {
        match order {
            Order::Send(job) => self.lanes.push(job),
            Order::Copy(job) => self.again.push_back((Instant::now(), job)),
            Order::Restart => return true,
            Order::Doze(_) => {}
        }
        false
    }

    async fn session(&mut self, connection: Connection) -> Left {
        let heartbeat = Duration::from_millis(connection.welcome.heartbeat_ms.max(100).into());
        let beat = if self.seat.probes { heartbeat.min(Duration::from_secs(1)) } else { heartbeat };
        self.catch_up.told(connection.welcome.receiver_seq.unwrap_or_default());
        let mut session = Session {
            device: self,
            connection,
            asked: HashMap::new(),
            look_ups: Vec::new(),
            reads: Vec::new(),
            last_id: 1,
            beat,
        };
        session.live().await.unwrap_or_else(|error| Left::Lost(Some(error)))
    }
}

/// One connection of a device.
struct Session<'a> {
    device: &'a mut Device,
    connection: Connection,
    asked: HashMap<u32, (Instant, Asked)>,
    /// Live entries to ask for at once.
    look_ups: Vec<LookUp>,
    /// Read positions to mark.
    reads: Vec<(String, u64)>,
    last_id: u32,
    beat: Duration,
}

impl Session<'_> {
    async fn live(&mut self) -> Result<Left, Error> {
        let mut tick = interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pinged = Instant::now();
        let stop = self.device.seat.stop.clone();
        loop {
            self.complete();
            self.ask().await?;
            tokio::select! {
                frame = self.connection.next() => {
                    let frame = frame?;
                    let asked = self.asked.remove(&frame.id).map(|(_, asked)| asked);
                    self.frame(frame.frame, asked);
                }
                () = stop.cancelled() => return Ok(Left::Stopped),
                Some(order) = self.device.seat.orders.recv() => if self.device.order(order) {
                    return Ok(Left::Restart);
                },
                _ = tick.tick() => {
                    let now = Instant::now();
                    let closing = self.device.seat.book.is_closing();
                    let beat = if closing { Duration::from_secs(1) } else { self.beat };
                    if now - pinged >= beat {
                        pinged = now;
                        self.device.snapshots.keep(self.device.catch_up.state());
                        let at = self.device.seat.book.now();
                        self.feed(Ask::Ping(Ping {}), Asked::Ping { closing, at }).await?;
                    }
                    let patience = |asked: &Asked| match asked {
                        Asked::Ping { .. } if self.device.seat.probes => Duration::from_secs(3),
                        _ => ANSWER,
                    };
                    if self.asked.values().any(|(at, asked)| now - *at > patience(asked)) {
                        return Ok(Left::Lost(None));
                    }
                }
            }
        }
    }

    /// Notes it when everything is here that was counted.
    fn complete(&mut self) {
        if let Some(have) = self.device.catch_up.take_complete() {
            let seat = &self.device.seat;
            seat.book.saw(seat.id, Seen::Complete { epoch: have.epoch, seq: have.seq, at: seat.book.now() });
        }
    }

    async fn ask(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        while let Some(job) = self.device.lanes.next(now) {
            if let Some(sibling) = &self.device.seat.sibling
                && self.device.random.random_bool(COPY)
                && sibling.try_send(Order::Copy(job.clone())).is_ok()
                && self.device.lanes.copied(&job)
            {
                self.device.seat.book.unordered(job.send);
            }
            self.feed(send(&job), Asked::Send(job)).await?;
        }
        while self.device.again.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, job)) = self.device.again.pop_front()
        {
            self.feed(send(&job), Asked::Again(job)).await?;
        }
        for look_up in std::mem::take(&mut self.look_ups) {
            let page = GetHistory {
                conversation: look_up.conversation.clone(),
                after: look_up.conversation_seq - 1,
                limit: 1,
                ..GetHistory::default()
            };
            self.feed(Ask::History(page), Asked::LookUp(look_up)).await?;
        }
        for (conversation, conversation_seq) in std::mem::take(&mut self.reads) {
            let read = MarkRead { conversation: conversation.clone(), conversation_seq };
            self.feed(Ask::Read(read), Asked::Read(conversation, conversation_seq)).await?;
        }
        if let Some(want) = self.device.catch_up.want(now) {
            let (frame, asked) = match want {
                Want::Heads { after } => {
                    let page = GetHeads { after, limit: abi::MAX_PAGE };
                    (Ask::Heads(page), Asked::Heads(self.device.marks.clone()))
                }
                Want::History { conversation, after } => {
                    let page =
                        GetHistory { conversation: conversation.clone(), after, ..GetHistory::default() };
                    (Ask::History(page), Asked::History(conversation))
                }
            };
            self.feed(frame, asked).await?;
        }
        self.connection.flush().await
    }

    async fn feed(&mut self, frame: Ask, asked: Asked) -> Result<(), Error> {
        self.last_id += 1;
        self.asked.insert(self.last_id, (Instant::now(), asked));
        self.connection.feed(codec::encode(self.last_id, frame)).await
    }

    fn frame(&mut self, frame: Option<Frame>, asked: Option<Asked>) {
        let Device { seat, random, lanes, catch_up, marks, again, .. } = &mut *self.device;
        match (frame, asked) {
            (Some(Frame::Ack(ack)), Some(Asked::Send(job))) => {
                seat.book.acked(job.send, &ack);
                lanes.done(&job);
                if !seat.probes && random.random_bool(AGAIN) {
                    let pause = Duration::from_millis(random.random_range(0..20_000));
                    again.push_back((Instant::now() + pause, job));
                }
            }
            (Some(Frame::Ack(ack)), Some(Asked::Again(job))) => {
                seat.book.acked(job.send, &ack);
            }
            (Some(Frame::Error(error)), Some(asked)) => self.refused(asked, &error.into()),
            (Some(Frame::Heads(page)), Some(Asked::Heads(marks))) => {
                for head in &page.heads {
                    let conversation = seat.book.conversation(&head.conversation);
                    let conversation_seq = super::book::number(head.conversation_seq);
                    let visible_from = super::book::number(head.visible_from);
                    seat.book.saw(seat.id, Seen::Head { conversation, conversation_seq, visible_from });
                    if let Err(known) = marks.told(&head.conversation, head.read_seq) {
                        went_back(seat, &head.conversation, head.read_seq, known);
                    }
                }
                catch_up.heads(page);
            }
            (Some(Frame::History(page)), Some(Asked::History(conversation))) => {
                for entry in catch_up.history(&conversation, page) {
                    seat.book.shown(seat.id, &entry, false);
                }
            }
            (Some(Frame::History(page)), Some(Asked::LookUp(look_up))) => {
                let found = page.entries.first();
                let is_it = |entry: &Entry| {
                    entry.conversation_seq == look_up.conversation_seq
                        && entry.message_id == look_up.message_id
                };
                if !found.is_some_and(is_it) {
                    let answer = found.map_or(Instead::Nothing, |_| Instead::Other);
                    self.unreadable(&look_up, answer);
                }
            }
            (Some(Frame::Read(read)), Some(Asked::Read(conversation, marked))) => {
                if let Err(known) = marks.answered(&conversation, marked, read.read_seq) {
                    went_back(seat, &conversation, read.read_seq, known);
                }
            }
            (Some(Frame::Pong(pong)), Some(Asked::Ping { closing, at })) => {
                // A gateway that could not ask for the number leaves it out.
                let equal = pong.receiver_seq.is_some_and(|now| catch_up.told(now));
                if equal {
                    seat.book.saw(seat.id, Seen::UpToDate { asked: at });
                    if closing && lanes.is_empty() {
                        seat.book.settled(seat.id, at);
                    }
                }
            }
            (Some(Frame::Deliver(deliver)), _) => self.deliver(deliver),
            _ => {}
        }
    }

    fn deliver(&mut self, deliver: Deliver) {
        let Device { seat, catch_up, .. } = &mut *self.device;
        let counted = deliver.receiver_seq.unwrap_or_default();
        for entry in &deliver.entries {
            seat.book.pushes.came(seat.id, &entry.client_msg_id);
            let conversation = seat.book.conversation(&entry.conversation);
            let conversation_seq = super::book::number(entry.conversation_seq);
            let message_id = Id::parse(&entry.message_id).unwrap_or_default();
            let ReceiverSeq { epoch, seq } = counted;
            let digest = ledger::digest(&entry.sender, &entry.client_msg_id, entry.content.as_ref());
            let at = seat.book.now();
            let seen = Seen::Counted { conversation, conversation_seq, message_id, digest, epoch, seq, at };
            seat.book.saw(seat.id, seen);
        }
        let live = catch_up.is_idle();
        let mut shown = Vec::new();
        catch_up.deliver(deliver, &mut shown);
        for entry in &shown {
            seat.book.shown(seat.id, entry, live);
        }
        let Device { seat, random, .. } = &mut *self.device;
        let Some(last) = shown.pop().filter(|_| !seat.probes) else { return };
        if random.random_bool(READ) {
            self.reads.push((last.conversation.clone(), last.conversation_seq));
        }
        if random.random_bool(LOOK_UP) {
            self.look_ups.push(LookUp {
                conversation: last.conversation,
                conversation_seq: last.conversation_seq,
                message_id: last.message_id,
            });
        }
    }

    /// A request failed: again later, or for good.
    fn refused(&mut self, asked: Asked, fault: &ApiError) {
        let Device { seat, random, lanes, catch_up, .. } = &mut *self.device;
        let jitter = Duration::from_millis(random.random_range(100..400));
        let until = Instant::now() + fault.retry_after.unwrap_or(jitter);
        match asked {
            Asked::Send(job) if fault.code.is_retryable() => lanes.retry(&job, until),
            Asked::Send(job) => {
                let at_once = lanes.done(&job);
                if !at_once {
                    // Another attempt, such as one of another device, may still be taken when the refusal's reason is
                    // gone; this device goes on with the next message.
                    seat.book.unordered(job.send);
                }
                seat.book.refused(job.send, fault.code.name(), at_once);
            }
            Asked::Heads(_) => catch_up.heads_failed(until),
            Asked::History(conversation) => {
                catch_up.history_failed(&conversation, fault.code.is_retryable(), until);
            }
            Asked::LookUp(look_up) if !fault.code.is_retryable() => {
                self.unreadable(&look_up, Instead::Refusal);
            }
            Asked::Again(_) | Asked::LookUp(_) | Asked::Read(..) | Asked::Ping { .. } => {}
        }
    }

    fn unreadable(&self, look_up: &LookUp, answer: Instead) {
        let seat = &self.device.seat;
        let conversation = seat.book.conversation(&look_up.conversation);
        let conversation_seq = super::book::number(look_up.conversation_seq);
        let at = seat.book.now();
        seat.book.saw(seat.id, Seen::Unreadable { conversation, conversation_seq, answer, at });
    }
}

/// The server knows less of what the user has read than it had answered.
fn went_back(seat: &Seat, conversation: &str, read: u64, known: u64) {
    let conversation = seat.book.conversation(conversation);
    let (read, known) = (super::book::number(read), super::book::number(known));
    seat.book.saw(seat.id, Seen::Unread { conversation, read, known, at: seat.book.now() });
}

/// The frame that sends a message.
fn send(job: &Job) -> Ask {
    let body = Some(Body::Text(job.text.clone()));
    Ask::Send(Send {
        conversation: job.conversation.clone(),
        client_msg_id: job.client_msg_id.clone(),
        message: Some(Message { content_type: String::new(), body }),
    })
}
