//! A connection that sends, with retries and reconnects.

use super::{
    ledger::{Counters, Stamp},
    pacer::Schedule,
    run::Run,
    users::LoadUser,
};
use abi::v1::{Ping, ServerFrame, client_frame, server_frame::Frame};
use bytes::BytesMut;
use client::{Connection, Error, codec, connection::HELLO_ID};
use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::interval};

/// The first frame id of a message. Lower ids are `hello` and pings.
const FIRST_ID: u32 = HELLO_ID + 2;
const PING_ID: u32 = HELLO_ID + 1;
/// With messages in flight, a connection without frames for this long is dead.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Shortest pause after a retryable error.
const MIN_PAUSE: Duration = Duration::from_millis(20);

/// When messages are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Each sender keeps this many messages unacknowledged.
    Window(usize),
    /// Messages per second of all senders together.
    Rate(u32),
}

/// The pace of one sender.
pub(super) enum Drive {
    Window(usize),
    Schedule(Schedule, Arc<Notify>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ToSend,
    InFlight,
    Done,
}

struct Slot {
    /// When the message was due, in nanoseconds since the start of the run.
    due: u64,
    state: State,
}

pub(super) struct Sender {
    pub(super) run: Rc<Run>,
    pub(super) index: usize,
    pub(super) user: LoadUser,
    pub(super) conversation: String,
    pub(super) drive: Drive,
    /// The counters of acknowledged messages.
    pub(super) acked: Rc<RefCell<Counters>>,
    /// Messages from the oldest unacknowledged one on. The first has the counter `base`.
    slots: VecDeque<Slot>,
    base: u64,
    /// No slot before this index has to be sent.
    scan: usize,
    in_flight: usize,
    /// Time of the last acknowledgement, in nanoseconds since the start of the run.
    last_ack: u64,
    /// After a retryable error, no message goes out before this time, nor before all messages in flight are answered.
    paused_until: Option<Instant>,
    body: String,
    buffer: BytesMut,
}

impl Sender {
    pub(super) fn new(
        run: Rc<Run>,
        index: usize,
        user: LoadUser,
        conversation: String,
        drive: Drive,
        acked: Rc<RefCell<Counters>>,
    ) -> Self {
        Self {
            run,
            index,
            user,
            conversation,
            drive,
            acked,
            slots: VecDeque::new(),
            base: 0,
            scan: 0,
            in_flight: 0,
            last_ack: 0,
            paused_until: None,
            body: String::new(),
            buffer: BytesMut::with_capacity(16 * 1024),
        }
    }

    /// Sends until the end of the run, and until all messages are acknowledged.
    ///
    /// # Errors
    /// The server refuses a message permanently, or is unreachable for too long.
    pub(super) async fn run(mut self, connection: Connection) -> Result<(), Error> {
        let mut connection = Some(connection);
        loop {
            let mut open = match connection.take() {
                Some(open) => open,
                None => {
                    let open = self.user.connect(&self.run.servers, None).await?;
                    self.run.count_reconnect();
                    open
                }
            };
            match self.serve(&mut open).await {
                Ok(()) => {
                    open.close().await;
                    return Ok(());
                }
                Err(Error::Server(error)) => return Err(error.into()),
                Err(_) => {}
            }
        }
    }

    async fn serve(&mut self, connection: &mut Connection) -> Result<(), Error> {
        self.in_flight = 0;
        self.scan = 0;
        self.paused_until = None;
        for slot in self.slots.iter_mut().filter(|slot| slot.state == State::InFlight) {
            slot.state = State::ToSend;
        }
        let heartbeat = Duration::from_millis(connection.welcome.heartbeat_ms.max(100).into());
        let mut beat = interval(heartbeat.min(Duration::from_secs(5)));
        let (mut last_received, mut last_ping) = (Instant::now(), Instant::now());
        let notify = match &self.drive {
            Drive::Schedule(_, notify) => notify.clone(),
            Drive::Window(_) => Arc::default(),
        };
        loop {
            self.write_messages(connection).await?;
            if self.is_finished() {
                return Ok(());
            }
            let resume_at = self.paused_until.filter(|_| self.in_flight == 0);
            tokio::select! {
                bytes = connection.next_bytes() => {
                    self.receive(&bytes?)?;
                    while let Some(bytes) = connection.try_next_bytes() {
                        self.receive(&bytes?)?;
                    }
                    last_received = Instant::now();
                }
                () = notify.notified() => {}
                () = tokio::time::sleep_until(resume_at.unwrap_or(last_received).into()), if resume_at.is_some() => {}
                _ = beat.tick() => {
                    let silent = last_received.elapsed();
                    if silent > heartbeat.mul_f64(2.5) || (self.in_flight > 0 && silent > ANSWER_TIMEOUT) {
                        return Err(Error::Timeout { what: "a message" });
                    }
                    if last_ping.elapsed() + Duration::from_secs(1) >= heartbeat {
                        last_ping = Instant::now();
                        connection.feed(codec::encode(PING_ID, client_frame::Frame::Ping(Ping {}))).await?;
                        connection.flush().await?;
                    }
                }
            }
        }
    }

    fn is_finished(&self) -> bool {
        let over = match &self.drive {
            Drive::Window(_) => self.run.now() >= self.run.until,
            Drive::Schedule(schedule, _) => {
                let next = self.base + self.slots.len() as u64;
                schedule.due_of(self.index, next).is_none()
            }
        };
        over && self.slots.is_empty()
    }

    /// Writes all messages that may go out now: first retries, then new ones.
    async fn write_messages(&mut self, connection: &mut Connection) -> Result<(), Error> {
        if let Some(until) = self.paused_until {
            if self.in_flight > 0 || Instant::now() < until {
                return Ok(());
            }
            self.paused_until = None;
            self.scan = 0;
        }
        let most = connection.welcome.max_in_flight.max(1) as usize;
        let most = match self.drive {
            Drive::Window(window) => most.min(window),
            Drive::Schedule(..) => most,
        };
        if self.in_flight >= most {
            return Ok(());
        }
        let now = self.run.now();
        let mut fed = false;
        while self.in_flight < most {
            while self.slots.get(self.scan).is_some_and(|slot| slot.state != State::ToSend) {
                self.scan += 1;
            }
            if self.scan == self.slots.len() {
                let counter = self.base + self.slots.len() as u64;
                let due = match &self.drive {
                    Drive::Window(_) => Some(now).filter(|now| *now < self.run.until),
                    Drive::Schedule(schedule, _) => {
                        schedule.due_of(self.index, counter).filter(|due| *due <= now)
                    }
                };
                let Some(due) = due else { break };
                self.slots.push_back(Slot { due, state: State::ToSend });
                self.run.sent.set(self.run.sent.get() + 1);
            }
            let slot = &mut self.slots[self.scan];
            slot.state = State::InFlight;
            let (counter, due) = (self.base + self.scan as u64, slot.due);
            self.scan += 1;
            self.in_flight += 1;
            self.encode(counter, due);
            connection.feed(self.buffer.split().freeze()).await?;
            fed = true;
        }
        if fed { connection.flush().await } else { Ok(()) }
    }

    fn encode(&mut self, counter: u64, due: u64) {
        let stamp = Stamp { sender: self.index as u32, counter, due };
        stamp.write(self.run.body, &mut self.body);
        let mut id = uuid::Uuid::encode_buffer();
        let id = self.run.message_uuid(self.index, counter, due).hyphenated().encode_lower(&mut id);
        codec::encode_text(&mut self.buffer, frame_id(counter), &self.conversation, id, &self.body);
    }

    fn receive(&mut self, bytes: &bytes::Bytes) -> Result<(), Error> {
        // The server delivers messages to the sending device, too; the receivers check them.
        if codec::is_deliver(bytes) {
            return Ok(());
        }
        let ServerFrame { id, frame, .. } = codec::decode(bytes.clone())?;
        // The id is the low part of a counter, which is unique among unacknowledged messages.
        let offset = id.wrapping_sub(frame_id(self.base)) as usize;
        match frame {
            Some(Frame::Ack(_)) if id >= FIRST_ID => self.acknowledge(offset),
            Some(Frame::Error(error)) if id >= FIRST_ID => {
                let error = abi::ApiError::from(error);
                if !error.code.is_retryable() {
                    return Err(error.into());
                }
                let Some(slot) = self.slots.get_mut(offset).filter(|slot| slot.state == State::InFlight)
                else {
                    return Ok(());
                };
                slot.state = State::ToSend;
                self.in_flight -= 1;
                self.run.refused.set(self.run.refused.get() + 1);
                let until = Instant::now() + error.retry_after.unwrap_or_default().max(MIN_PAUSE);
                self.paused_until = self.paused_until.max(Some(until));
            }
            _ => {}
        }
        Ok(())
    }

    fn acknowledge(&mut self, offset: usize) {
        let Some(slot) = self.slots.get_mut(offset).filter(|slot| slot.state != State::Done) else { return };
        self.in_flight -= usize::from(slot.state == State::InFlight);
        slot.state = State::Done;
        let now = self.run.acked(slot.due);
        self.end_pause(now);
        self.acked.borrow_mut().insert(self.base + offset as u64);
        while self.slots.front().is_some_and(|slot| slot.state == State::Done) {
            self.slots.pop_front();
            self.base += 1;
            self.scan = self.scan.saturating_sub(1);
        }
    }

    /// Ends a pause. It began with the last acknowledgement, or when the oldest unacknowledged message was due if that was
    /// later.
    fn end_pause(&mut self, now: u64) {
        let unsent = || match &self.drive {
            Drive::Window(_) => None,
            Drive::Schedule(schedule, _) => schedule.due_of(self.index, self.base),
        };
        if let Some(due) = self.slots.front().map(|slot| slot.due).or_else(unsent) {
            self.run.paused(now.saturating_sub(self.last_ack.max(due)));
        }
        self.last_ack = now;
    }
}

impl Drop for Sender {
    /// Messages that are still unacknowledged at the end of the run count as a pause until then.
    fn drop(&mut self) {
        self.end_pause(self.run.now());
    }
}

/// The frame id of a message. It starts at [`FIRST_ID`] and wraps around after 2^32 messages of a sender.
fn frame_id(counter: u64) -> u32 {
    FIRST_ID.wrapping_add(counter as u32)
}
