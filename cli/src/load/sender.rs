//! One connection that sends, through reconnects, refusals and restarts of the server.

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

/// Frame ids of messages begin here; below are hello and pings.
const FIRST_ID: u32 = HELLO_ID + 2;
const PING_ID: u32 = HELLO_ID + 1;
/// With messages on their way, a server that says nothing for so long is gone.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Shortest pause after "try again".
const MIN_HOLD: Duration = Duration::from_millis(20);

/// When messages are sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// So many are kept unacknowledged by each sender.
    Window(usize),
    /// So many per second over all senders.
    Rate(u32),
}

/// How one sender goes.
pub(super) enum Drive {
    Window(usize),
    Schedule(Schedule, Arc<Notify>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ToSend,
    OnWire,
    Done,
}

struct Slot {
    /// Nanoseconds of the run.
    intended: u64,
    state: State,
}

pub(super) struct Sender {
    pub(super) run: Rc<Run>,
    pub(super) index: usize,
    pub(super) user: LoadUser,
    pub(super) conversation: String,
    pub(super) drive: Drive,
    /// The server has them durably.
    pub(super) acked: Rc<RefCell<Counters>>,
    /// Messages from the oldest unacknowledged one on; the first has the counter `base`.
    slots: VecDeque<Slot>,
    base: u64,
    /// Slots before this one need no look for something to send.
    scan: usize,
    on_wire: usize,
    /// When the last acknowledgement came, in nanoseconds of the run.
    last_ack: u64,
    /// After "try again" nothing goes out before this, nor before all on the wire was answered.
    hold: Option<Instant>,
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
            on_wire: 0,
            last_ack: 0,
            hold: None,
            body: String::new(),
            buffer: BytesMut::with_capacity(16 * 1024),
        }
    }

    /// Sends until its time is over and all is acknowledged.
    ///
    /// # Errors
    /// What the server refuses for good, or a server that stays away.
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
            match self.live(&mut open).await {
                Ok(()) => {
                    open.close().await;
                    return Ok(());
                }
                Err(Error::Server(fault)) => return Err(fault.into()),
                Err(_) => {}
            }
        }
    }

    async fn live(&mut self, connection: &mut Connection) -> Result<(), Error> {
        self.on_wire = 0;
        self.scan = 0;
        self.hold = None;
        for slot in self.slots.iter_mut().filter(|slot| slot.state == State::OnWire) {
            slot.state = State::ToSend;
        }
        let heartbeat = Duration::from_millis(connection.welcome.heartbeat_ms.max(100).into());
        let mut beat = interval(heartbeat.min(Duration::from_secs(5)));
        let (mut heard, mut pinged) = (Instant::now(), Instant::now());
        let notify = match &self.drive {
            Drive::Schedule(_, notify) => notify.clone(),
            Drive::Window(_) => Arc::default(),
        };
        loop {
            self.fill(connection).await?;
            if self.is_finished() {
                return Ok(());
            }
            let hold = self.hold.filter(|_| self.on_wire == 0);
            tokio::select! {
                bytes = connection.next_bytes() => {
                    self.receive(&bytes?)?;
                    while let Some(bytes) = connection.try_next_bytes() {
                        self.receive(&bytes?)?;
                    }
                    heard = Instant::now();
                }
                () = notify.notified() => {}
                () = tokio::time::sleep_until(hold.unwrap_or(heard).into()), if hold.is_some() => {}
                _ = beat.tick() => {
                    let silent = heard.elapsed();
                    if silent > heartbeat.mul_f64(2.5) || (self.on_wire > 0 && silent > ANSWER_TIMEOUT) {
                        return Err(Error::Timeout { what: "a message" });
                    }
                    if pinged.elapsed() + Duration::from_secs(1) >= heartbeat {
                        pinged = Instant::now();
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

    /// Writes all that may go out now: first what is to be sent again, then what is new.
    async fn fill(&mut self, connection: &mut Connection) -> Result<(), Error> {
        if let Some(until) = self.hold {
            if self.on_wire > 0 || Instant::now() < until {
                return Ok(());
            }
            self.hold = None;
            self.scan = 0;
        }
        let most = connection.welcome.max_in_flight.max(1) as usize;
        let most = match self.drive {
            Drive::Window(window) => most.min(window),
            Drive::Schedule(..) => most,
        };
        if self.on_wire >= most {
            return Ok(());
        }
        let now = self.run.now();
        let mut fed = false;
        while self.on_wire < most {
            while self.slots.get(self.scan).is_some_and(|slot| slot.state != State::ToSend) {
                self.scan += 1;
            }
            if self.scan == self.slots.len() {
                let counter = self.base + self.slots.len() as u64;
                let intended = match &self.drive {
                    Drive::Window(_) => Some(now).filter(|now| *now < self.run.until),
                    Drive::Schedule(schedule, _) => {
                        schedule.due_of(self.index, counter).filter(|due| *due <= now)
                    }
                };
                let Some(intended) = intended else { break };
                self.slots.push_back(Slot { intended, state: State::ToSend });
                self.run.sent.set(self.run.sent.get() + 1);
            }
            let slot = &mut self.slots[self.scan];
            slot.state = State::OnWire;
            let (counter, intended) = (self.base + self.scan as u64, slot.intended);
            self.scan += 1;
            self.on_wire += 1;
            self.encode(counter, intended);
            connection.feed(self.buffer.split().freeze()).await?;
            fed = true;
        }
        if fed { connection.flush().await } else { Ok(()) }
    }

    fn encode(&mut self, counter: u64, intended: u64) {
        let stamp = Stamp { sender: self.index as u32, counter, intended };
        stamp.write(self.run.body, &mut self.body);
        let mut id = uuid::Uuid::encode_buffer();
        let id = self.run.message_uuid(self.index, counter, intended).hyphenated().encode_lower(&mut id);
        codec::encode_text(&mut self.buffer, frame_id(counter), &self.conversation, id, &self.body);
    }

    fn receive(&mut self, bytes: &bytes::Bytes) -> Result<(), Error> {
        // The sending device gets its own messages as well; the receivers check them.
        if codec::is_deliver(bytes) {
            return Ok(());
        }
        let ServerFrame { id, frame } = codec::decode(bytes.clone())?;
        // Counters are unique among the unacknowledged; the id is the low part of one.
        let offset = id.wrapping_sub(frame_id(self.base)) as usize;
        match frame {
            Some(Frame::Ack(_)) if id >= FIRST_ID => self.acknowledge(offset),
            Some(Frame::Error(error)) if id >= FIRST_ID => {
                let fault = abi::ApiError::from(error);
                if !fault.code.is_retryable() {
                    return Err(fault.into());
                }
                let Some(slot) = self.slots.get_mut(offset).filter(|slot| slot.state == State::OnWire) else {
                    return Ok(());
                };
                slot.state = State::ToSend;
                self.on_wire -= 1;
                self.run.refused.set(self.run.refused.get() + 1);
                let until = Instant::now() + fault.retry_after.unwrap_or_default().max(MIN_HOLD);
                self.hold = self.hold.max(Some(until));
            }
            _ => {}
        }
        Ok(())
    }

    fn acknowledge(&mut self, offset: usize) {
        let Some(slot) = self.slots.get_mut(offset).filter(|slot| slot.state != State::Done) else { return };
        self.on_wire -= usize::from(slot.state == State::OnWire);
        slot.state = State::Done;
        let now = self.run.acked(slot.intended);
        self.end_pause(now);
        self.acked.borrow_mut().insert(self.base + offset as u64);
        while self.slots.front().is_some_and(|slot| slot.state == State::Done) {
            self.slots.pop_front();
            self.base += 1;
            self.scan = self.scan.saturating_sub(1);
        }
    }

    /// A pause lasts from the last acknowledgement, or from when the oldest unacknowledged message was due if that is later,
    /// until now.
    fn end_pause(&mut self, now: u64) {
        let unsent = || match &self.drive {
            Drive::Window(_) => None,
            Drive::Schedule(schedule, _) => schedule.due_of(self.index, self.base),
        };
        if let Some(due) = self.slots.front().map(|slot| slot.intended).or_else(unsent) {
            self.run.paused(now.saturating_sub(self.last_ack.max(due)));
        }
        self.last_ack = now;
    }
}

impl Drop for Sender {
    /// What is still unacknowledged when the run is given up was waited for until then.
    fn drop(&mut self) {
        self.end_pause(self.run.now());
    }
}

/// The frame id of a message: above [`FIRST_ID`], and never 0 again in four thousand million messages of one sender.
fn frame_id(counter: u64) -> u32 {
    FIRST_ID.wrapping_add(counter as u32)
}
