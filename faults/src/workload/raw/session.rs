//! One connection of a raw device: sends requests and receives frames.

use super::{
    catch_up::Fetch,
    device::{ANSWER_TIMEOUT, RawDevice},
    request::{self, Request},
    responses::{self, FollowUps},
};
use crate::{
    ledger::{NOT_TAKEN, Observation},
    workload::{
        command::{Command, SendJob},
        device::DeviceContext,
    },
};
use abi::v1::client_frame::Frame;
use client::{Connection, Error, codec};
use rand::RngExt as _;
use std::{collections::HashMap, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Probability that another device of the user sends the same `client_msg_id` too.
const COPY: f64 = 0.02;
/// Longest interval between pings of a probe device, and of all devices in the final phase.
const FAST_PING: Duration = Duration::from_secs(1);
/// Longest wait of a probe device for a pong.
const PROBE_PONG_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a connection ended.
pub(super) enum SessionEnd {
    Stopped,
    Restart,
    Lost(Option<Error>),
}

/// One connection of a device.
pub(super) struct Session<'a> {
    device: &'a mut RawDevice,
    connection: Connection,
    /// Requests without an answer, by their id.
    pending: HashMap<u32, (Instant, Request)>,
    follow_ups: FollowUps,
    last_id: u32,
    ping_interval: Duration,
    pinged: Instant,
}

impl<'a> Session<'a> {
    /// Runs a connection to its end.
    pub(super) async fn run(device: &'a mut RawDevice, connection: Connection) -> SessionEnd {
        let heartbeat = Duration::from_millis(connection.welcome.heartbeat_ms.max(100).into());
        let ping_interval = if device.context.is_probe { heartbeat.min(FAST_PING) } else { heartbeat };
        device.catch_up.announced(connection.welcome.receiver_seq.unwrap_or_default());
        let mut session = Self {
            device,
            connection,
            pending: HashMap::new(),
            follow_ups: FollowUps::default(),
            last_id: 1,
            ping_interval,
            pinged: Instant::now(),
        };
        session.serve().await.unwrap_or_else(|error| SessionEnd::Lost(Some(error)))
    }

    async fn serve(&mut self) -> Result<SessionEnd, Error> {
        let mut tick = interval(Duration::from_millis(100));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stop = self.device.context.stop.clone();
        loop {
            self.report_complete();
            self.send_requests().await?;
            tokio::select! {
                frame = self.connection.next() => {
                    let frame = frame?;
                    let request = self.pending.remove(&frame.id).map(|(_, request)| request);
                    responses::handle(self.device, &mut self.follow_ups, frame.frame, request);
                }
                () = stop.cancelled() => return Ok(SessionEnd::Stopped),
                Some(command) = self.device.context.commands.recv() => if self.device.apply(command) {
                    return Ok(SessionEnd::Restart);
                },
                _ = tick.tick() => {
                    self.ping_if_due().await?;
                    if self.has_timed_out() {
                        return Ok(SessionEnd::Lost(None));
                    }
                }
            }
        }
    }

    async fn ping_if_due(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let final_phase = self.device.context.recorder.in_final_phase();
        let ping_interval = if final_phase { FAST_PING } else { self.ping_interval };
        if now - self.pinged < ping_interval {
            return Ok(());
        }
        self.pinged = now;
        self.device.snapshots.save(self.device.catch_up.state());
        let at = self.device.context.recorder.now();
        self.feed(request::ping(), Request::Ping { final_phase, at }).await
    }

    fn has_timed_out(&self) -> bool {
        let now = Instant::now();
        let is_probe = self.device.context.is_probe;
        let limit = |request: &Request| match request {
            Request::Ping { .. } if is_probe => PROBE_PONG_TIMEOUT,
            _ => ANSWER_TIMEOUT,
        };
        self.pending.values().any(|(at, request)| now - *at > limit(request))
    }

    /// Records when the device has every entry that its receiver seq counts.
    fn report_complete(&mut self) {
        if let Some(have) = self.device.catch_up.take_complete() {
            let context = &self.device.context;
            let at = context.recorder.now();
            let complete = Observation::Complete { epoch: have.epoch, seq: have.seq, at };
            context.recorder.observed(context.id, complete);
        }
    }

    /// Sends all requests that are due.
    async fn send_requests(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        while let Some(job) = self.device.queues.next(now) {
            if job.may_be_copied && self.device.random.random_bool(COPY) {
                self.send_copy(&job);
            }
            self.feed(request::send(&job), Request::Send(job)).await?;
        }
        while self.device.resends.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, job)) = self.device.resends.pop_front()
        {
            self.feed(request::send(&job), Request::Resend(job)).await?;
        }
        while let Some(job) = self.device.signals.pop_front() {
            self.feed(request::signal(job), Request::Signal).await?;
        }
        while let Some(job) = self.device.settings.pop_front() {
            self.feed(request::settings(&job), Request::Settings(job.number)).await?;
        }
        let FollowUps { look_ups, read_marks } = std::mem::take(&mut self.follow_ups);
        for look_up in look_ups {
            self.feed(request::look_up(&look_up), Request::LookUp(look_up)).await?;
        }
        for (conversation, seq) in read_marks {
            self.feed(request::mark_read(&conversation, seq), Request::MarkRead(conversation, seq)).await?;
        }
        if let Some(fetch) = self.device.catch_up.next_fetch(now) {
            let (frame, request) = match fetch {
                Fetch::Changes { have, cursor } => {
                    (request::changes(have, cursor), Request::Changes(self.device.read_positions.clone()))
                }
                Fetch::History { conversation, after } => {
                    (request::history(conversation.clone(), after), Request::History(conversation))
                }
            };
            self.feed(frame, request).await?;
        }
        self.connection.flush().await
    }

    /// Lets another device of the user send a copy of a message. As its device differs, it is another message.
    fn send_copy(&self, job: &SendJob) {
        let DeviceContext { sibling, recorder, .. } = &self.device.context;
        let Some((sibling, commands)) = sibling else { return };
        let copy = recorder.begin_copy(job, *sibling);
        let send = copy.send;
        if commands.try_send(Command::Send(copy)).is_err() {
            recorder.refused(send, NOT_TAKEN, true);
        }
    }

    async fn feed(&mut self, frame: Frame, request: Request) -> Result<(), Error> {
        self.last_id += 1;
        self.pending.insert(self.last_id, (Instant::now(), request));
        self.connection.feed(codec::encode(self.last_id, frame)).await
    }
}
