//! The protocol of a WebSocket connection as a state machine: typed frames and the time go in, steps come out. It has no socket,
//! no clock and no backend, so every rule of the protocol can be tested here.
//!
//! Sends are checked one after the other, which keeps their order. Requests are answered next to them, a few at a time. Frames
//! that have to wait are kept here, within a bound; beyond it the connection stops reading.

mod requests;
mod send_order;
mod settings;
mod step;

pub use settings::Settings;
pub use step::{Request, Step};

use crate::{hub::Identity, outbox::SendId};
use abi::{
    ApiError,
    error::ErrorCode,
    frame::FrameError,
    v1::{ClientFrame, Send, client_frame::Frame},
};
use prost::Message as _;
use requests::Requests;
use send_order::SendOrder;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::Instant;
use utils::rate::TokenBucket;

/// A send that waits until the one before it is checked.
#[derive(Debug)]
struct WaitingSend {
    id: u32,
    send: Send,
    bytes: usize,
    read_at: Instant,
}

#[derive(Debug)]
enum Phase {
    AwaitingHello { until: Instant },
    Authenticating { until: Instant },
    Live { identity: Identity, renew_at: Instant, recheck_at: Instant },
}

/// The state of one connection; see the module.
#[derive(Debug)]
pub struct Protocol {
    settings: Arc<Settings>,
    phase: Phase,
    /// When the device last sent anything.
    heard_at: Instant,
    sends: SendOrder,
    /// A send is being checked.
    is_sending: bool,
    waiting_sends: VecDeque<WaitingSend>,
    waiting_bytes: usize,
    requests: Requests,
    request_rate: TokenBucket,
}

impl Protocol {
    /// The state of a socket that was opened now.
    pub fn new(settings: Arc<Settings>, now: Instant) -> Self {
        Self {
            phase: Phase::AwaitingHello { until: now + settings.hello_timeout },
            request_rate: TokenBucket::new(settings.requests_per_second, settings.request_burst, now),
            heard_at: now,
            sends: SendOrder::default(),
            is_sending: false,
            waiting_sends: VecDeque::new(),
            waiting_bytes: 0,
            requests: Requests::default(),
            settings,
        }
    }

    /// The identity of the device, after [`Self::welcomed`].
    pub fn identity(&self) -> Option<&Identity> {
        match &self.phase {
            Phase::AwaitingHello { .. } | Phase::Authenticating { .. } => None,
            Phase::Live { identity, .. } => Some(identity),
        }
    }

    /// Whether another frame may be handled. Backpressure: with too many unanswered frames, further ones stay in the socket.
    pub fn can_read(&self) -> bool {
        let sends = self.sends.in_flight() + self.waiting_sends.len();
        !self.is_authenticating()
            && sends < self.settings.max_in_flight as usize
            && self.waiting_bytes < self.settings.max_waiting
            && self.requests.has_room(self.settings.max_waiting)
    }

    /// Whether the token of the device is being checked. A frame that arrives meanwhile must be kept for later.
    pub fn is_authenticating(&self) -> bool {
        matches!(self.phase, Phase::Authenticating { .. })
    }

    /// The device is alive: it sent a control frame, such as a WebSocket ping, or took bytes while the gateway did not read.
    pub fn on_sign_of_life(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Handles a frame, or the error of one that could not be decoded. `None`: the frame waits; see [`Self::next_step`].
    pub fn on_frame(&mut self, frame: Result<ClientFrame, FrameError>, now: Instant) -> Option<Step> {
        self.heard_at = now;
        let frame = match frame {
            Ok(frame) => frame,
            Err(FrameError { id, error }) => return Some(self.refuse(id, error, now)),
        };
        let id = frame.id;
        let Some(content) = frame.frame else {
            return Some(self.refuse(id, ApiError::invalid("the frame holds no request"), now));
        };
        if self.identity().is_none() {
            return Some(self.on_first(id, content, now));
        }
        if id != 0 && (self.sends.has_id(id) || self.requests.has_id(id) || self.has_waiting_send(id)) {
            let error = ApiError::invalid(format!("id {id} is that of an unanswered frame; use another one"));
            return Some(self.refuse(id, error, now));
        }
        match content {
            Frame::Hello(_) => {
                let error = "hello was sent before; open another connection to use another token";
                Some(self.refuse(id, ApiError::invalid(error), now))
            }
            Frame::Send(send) => self.send(id, send, now),
            Frame::Heads(heads) => self.request(id, Request::Heads(heads), now),
            Frame::History(history) => self.request(id, Request::History(history), now),
            Frame::Read(read) => self.request(id, Request::Read(read), now),
            Frame::Ping(_) => {
                let step = self.request(id, Request::Ping, now);
                // The answer to a ping renews the route.
                if let (Some(Step::Answer(..)), Phase::Live { renew_at, .. }) = (&step, &mut self.phase) {
                    *renew_at = now + self.settings.heartbeat;
                }
                step
            }
        }
    }

    fn on_first(&mut self, id: u32, content: Frame, now: Instant) -> Step {
        match content {
            Frame::Hello(hello) => {
                self.phase = Phase::Authenticating { until: now + self.settings.hello_timeout };
                Step::Authenticate(id, hello)
            }
            _ => Step::Close(ApiError::new(
                ErrorCode::Unauthenticated,
                "the first frame must be hello, with a token",
            )),
        }
    }

    fn has_waiting_send(&self, id: u32) -> bool {
        self.waiting_sends.iter().any(|waiting| waiting.id == id)
    }

    fn send(&mut self, id: u32, send: Send, now: Instant) -> Option<Step> {
        if !self.is_sending && self.waiting_sends.is_empty() {
            return Some(self.begin_send(id, send, now));
        }
        let bytes = send.encoded_len();
        self.waiting_bytes += bytes;
        self.waiting_sends.push_back(WaitingSend { id, send, bytes, read_at: now });
        None
    }

    fn begin_send(&mut self, id: u32, send: Send, read_at: Instant) -> Step {
        match self.sends.begin(id, &send, read_at) {
            Ok(id) => {
                self.is_sending = true;
                Step::Send(id, send)
            }
            Err(error) => Step::Refuse(id, error),
        }
    }

    fn request(&mut self, id: u32, request: Request, now: Instant) -> Option<Step> {
        if let Some(name) = request.needs_answer().filter(|_| id == 0) {
            let error = ApiError::invalid(format!("{name} needs an id other than 0, which means: no answer"));
            return Some(self.refuse(id, error, now));
        }
        if let Err(wait) = self.request_rate.try_take(1, now) {
            return Some(Step::Refuse(id, too_many_requests(wait)));
        }
        let step = self.requests.accept(id, request, self.settings.max_requests as usize);
        step.map(|(id, request)| Step::Answer(id, request))
    }

    /// Invalid frames count as requests, so that they are limited as well.
    fn refuse(&mut self, id: u32, error: ApiError, now: Instant) -> Step {
        if self.identity().is_none() {
            return Step::Close(error);
        }
        match self.request_rate.try_take(1, now) {
            Ok(()) => Step::Refuse(id, error),
            Err(wait) => Step::Refuse(id, too_many_requests(wait)),
        }
    }

    /// The step of a frame that waited and may go on. Call it after [`Self::sent`] and [`Self::answered`] until it returns `None`.
    pub fn next_step(&mut self) -> Option<Step> {
        if !self.is_sending
            && let Some(WaitingSend { id, send, bytes, read_at }) = self.waiting_sends.pop_front()
        {
            self.waiting_bytes -= bytes;
            if self.waiting_sends.is_empty() {
                self.waiting_sends = VecDeque::new();
            }
            return Some(self.begin_send(id, send, read_at));
        }
        let (id, request) = self.requests.next(self.settings.max_requests as usize)?;
        Some(Step::Answer(id, request))
    }

    /// The device is authenticated and has its welcome.
    pub fn welcomed(&mut self, identity: Identity, now: Instant) {
        self.phase = Phase::Live {
            identity,
            renew_at: now + self.settings.heartbeat,
            recheck_at: now + self.settings.recheck,
        };
    }

    /// A send was checked, and logged or refused.
    pub fn sent(&mut self, id: SendId, refused: Option<&ApiError>) {
        self.is_sending = false;
        if let Some(error) = refused {
            self.sends.refused(id, error);
        }
    }

    /// The log refused a send. Report it before the next step: it may put the conversation on hold.
    pub fn refused(&mut self, id: SendId, error: &ApiError) {
        self.sends.refused(id, error);
    }

    /// A request was answered.
    pub fn answered(&mut self, id: u32, is_ping: bool) {
        self.requests.answered(id, is_ping);
    }

    /// The answers of these sends are written. `now` is called only while a conversation is on hold: reading the clock costs as
    /// much as the rest.
    pub fn written(&mut self, answered: &[SendId], now: impl FnOnce() -> Instant) {
        answered.iter().for_each(|id| self.sends.answered(*id));
        if self.sends.has_holds() {
            self.sends.start_holds(now());
        }
    }

    /// Whether a conversation is on hold, so that [`Self::not_read_for`] must be called.
    pub fn has_holds(&self) -> bool {
        self.sends.has_holds()
    }

    /// The connection read no frames for a while. It does not count for the holds.
    pub fn not_read_for(&mut self, time: Duration) {
        self.sends.extend_holds(time);
    }

    fn idle_at(&self) -> Instant {
        self.heard_at + self.settings.idle_timeout()
    }

    /// When to call [`Self::on_time`] at the latest.
    pub fn deadline(&self) -> Instant {
        match &self.phase {
            Phase::AwaitingHello { until } | Phase::Authenticating { until } => *until,
            Phase::Live { renew_at, recheck_at, .. } => self.idle_at().min(*renew_at).min(*recheck_at),
        }
    }

    /// Returns the step that is due now, if any.
    pub fn on_time(&mut self, now: Instant) -> Option<Step> {
        let idle_at = self.idle_at();
        match &mut self.phase {
            Phase::AwaitingHello { until } if now >= *until => {
                let seconds = self.settings.hello_timeout.as_secs_f32();
                Some(Step::Close(ApiError::new(
                    ErrorCode::HelloTimeout,
                    format!("no hello within {seconds} s of opening the connection"),
                )))
            }
            Phase::Authenticating { until } if now >= *until => Some(Step::Close(ApiError::unavailable(
                "the server could not authenticate you in time; try again",
            ))),
            Phase::Live { .. } if now >= idle_at => Some(Step::Close(ApiError::new(
                ErrorCode::IdleTimeout,
                "the device sent nothing for 2.5 heartbeats",
            ))),
            Phase::Live { recheck_at, .. } if now >= *recheck_at => {
                *recheck_at = now + self.settings.recheck;
                Some(Step::Recheck)
            }
            Phase::Live { renew_at, .. } if now >= *renew_at => {
                *renew_at = now + self.settings.heartbeat;
                Some(Step::Renew)
            }
            _ => None,
        }
    }
}

fn too_many_requests(wait: Duration) -> ApiError {
    ApiError::rate_limited("too many requests on this connection", wait)
}

#[cfg(test)]
mod tests;
