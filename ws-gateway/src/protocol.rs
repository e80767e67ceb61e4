//! The protocol of a WebSocket connection as a state machine: typed frames and the time go in, steps come out. It has no socket,
//! no clock and no backend, so every rule of the protocol can be tested here.

mod send_order;

use crate::hub::Identity;
use abi::{
    ApiError,
    config::Config,
    error::ErrorCode,
    frame::FrameError,
    v1::{ClientFrame, GetHeads, GetHistory, Hello, MarkRead, Send, client_frame::Frame},
};
use send_order::SendOrder;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use utils::rate::TokenBucket;

/// Timeouts and limits of a connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a device may take to send its hello.
    pub hello_timeout: Duration,
    /// How often a device sends a heartbeat.
    pub heartbeat: Duration,
    /// How often the gateway checks that the account session is still valid.
    pub recheck: Duration,
    /// Most unanswered sends.
    pub max_in_flight: u32,
    /// Rate limit of requests other than sends, per second.
    pub requests_per_second: u32,
    /// Burst of requests other than sends.
    pub request_burst: u32,
}

impl Settings {
    /// The configured settings.
    pub fn new(config: &Config) -> Self {
        let (gateway, limits) = (&config.gateway, &config.limits);
        Self {
            hello_timeout: gateway.hello_timeout,
            heartbeat: gateway.heartbeat,
            recheck: config.auth.access_token_life,
            max_in_flight: gateway.max_in_flight,
            requests_per_second: limits.requests_per_second,
            request_burst: limits.request_burst,
        }
    }

    /// After this long without a frame (2.5 heartbeats) a device counts as gone, and its route expires.
    pub fn idle_timeout(&self) -> Duration {
        self.heartbeat * 5 / 2
    }
}

/// The next step of the connection.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Check the token, register the connection, send welcome; then call [`Protocol::welcomed`].
    Authenticate(u32, Hello),
    /// Check and log a message. It is in flight until its answer is written; see [`Done`].
    Send(u32, Send),
    /// Answer a request.
    Answer(u32, Request),
    /// Answer with an error and continue.
    Refuse(u32, ApiError),
    /// Renew the route of the connection.
    Renew,
    /// Check that the account session is still valid.
    Recheck,
    /// Close the connection.
    Close(ApiError),
}

/// Work that the connection did, during which it read no frames.
#[derive(Debug)]
pub enum Done {
    /// A step. If the step was a send and failed immediately: its request id and error.
    Step(Option<(u32, ApiError)>),
    /// A write to the socket.
    Write(Answers),
}

/// The answers to sends among the frames of a write.
#[derive(Debug, Default)]
pub struct Answers {
    /// Request ids of all answers.
    pub ids: Vec<u32>,
    /// Request ids and errors of the refusals among them.
    pub refused: Vec<(u32, ApiError)>,
}

/// A request that the backend answers.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// A page of heads.
    Heads(GetHeads),
    /// A page of history.
    History(GetHistory),
    /// Mark as read.
    Read(MarkRead),
    /// Heartbeat.
    Ping,
}

#[derive(Debug)]
enum Phase {
    AwaitingHello { until: Instant },
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
    requests: TokenBucket,
}

impl Protocol {
    /// The state of a socket that was opened now.
    pub fn new(settings: Arc<Settings>, now: Instant) -> Self {
        Self {
            phase: Phase::AwaitingHello { until: now + settings.hello_timeout },
            requests: TokenBucket::new(settings.requests_per_second, settings.request_burst, now),
            heard_at: now,
            sends: SendOrder::default(),
            settings,
        }
    }

    /// The identity of the device, after [`Self::welcomed`].
    pub fn identity(&self) -> Option<&Identity> {
        match &self.phase {
            Phase::AwaitingHello { .. } => None,
            Phase::Live { identity, .. } => Some(identity),
        }
    }

    /// Whether another frame may be read. Backpressure: with too many unanswered sends, frames stay in the socket.
    pub fn can_read(&self) -> bool {
        self.sends.in_flight() < self.settings.max_in_flight as usize
    }

    /// Handles a control frame, such as a WebSocket ping.
    pub fn on_control_frame(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Handles a frame, or the error of one that could not be decoded.
    pub fn on_frame(&mut self, frame: Result<ClientFrame, FrameError>, now: Instant) -> Step {
        self.heard_at = now;
        let frame = match frame {
            Ok(frame) => frame,
            Err(FrameError { id, error }) => return self.refuse(id, error, now),
        };
        let id = frame.id;
        let Some(content) = frame.frame else {
            return self.refuse(id, ApiError::invalid("the frame holds no request"), now);
        };
        match (&self.phase, content) {
            (Phase::AwaitingHello { .. }, Frame::Hello(hello)) => Step::Authenticate(id, hello),
            (Phase::AwaitingHello { .. }, _) => Step::Close(ApiError::new(
                ErrorCode::Unauthenticated,
                "the first frame must be hello, with a token",
            )),
            (Phase::Live { .. }, Frame::Hello(_)) => self.refuse(
                id,
                ApiError::invalid("hello was sent before; open another connection to use another token"),
                now,
            ),
            (Phase::Live { .. }, Frame::Send(send)) => match self.sends.begin(id, &send, now) {
                Ok(()) => Step::Send(id, send),
                Err(error) => Step::Refuse(id, error),
            },
            (Phase::Live { .. }, Frame::Heads(heads)) => self.request(id, Request::Heads(heads), now),
            (Phase::Live { .. }, Frame::History(history)) => self.request(id, Request::History(history), now),
            (Phase::Live { .. }, Frame::Read(read)) => self.request(id, Request::Read(read), now),
            (Phase::Live { .. }, Frame::Ping(_)) => {
                let step = self.request(id, Request::Ping, now);
                // The answer to a ping renews the route.
                if let (Step::Answer(..), Phase::Live { renew_at, .. }) = (&step, &mut self.phase) {
                    *renew_at = now + self.settings.heartbeat;
                }
                step
            }
        }
    }

    fn request(&mut self, id: u32, request: Request, now: Instant) -> Step {
        match self.requests.try_take(1, now) {
            Ok(()) => Step::Answer(id, request),
            Err(wait) => {
                Step::Refuse(id, ApiError::rate_limited("too many requests on this connection", wait))
            }
        }
    }

    /// Invalid frames count as requests, so that they are limited as well.
    fn refuse(&mut self, id: u32, error: ApiError, now: Instant) -> Step {
        if self.identity().is_none() {
            return Step::Close(error);
        }
        match self.requests.try_take(1, now) {
            Ok(()) => Step::Refuse(id, error),
            Err(wait) => {
                Step::Close(ApiError::rate_limited("too many invalid frames on this connection", wait))
            }
        }
    }

    /// The device is authenticated and has its welcome.
    pub fn welcomed(&mut self, identity: Identity, now: Instant) {
        self.phase = Phase::Live {
            identity,
            renew_at: now + self.settings.heartbeat,
            recheck_at: now + self.settings.recheck,
        };
    }

    /// Records work that the connection did from `began` to now. The caller reports it before it reads the next frame. `now`
    /// is called only while a conversation is on hold: reading the clock costs as much as the rest.
    pub fn on_done(&mut self, done: Done, began: Instant, now: impl FnOnce() -> Instant) {
        match done {
            Done::Step(None) => {}
            Done::Step(Some((id, error))) => self.sends.refused(id, &error),
            Done::Write(answers) => {
                answers.refused.iter().for_each(|(id, error)| self.sends.refused(*id, error));
                answers.ids.into_iter().for_each(|id| self.sends.answered(id));
            }
        }
        if self.sends.has_holds() {
            let now = now();
            self.sends.extend_holds(now - began);
            self.sends.start_holds(now);
        }
    }

    fn idle_at(&self) -> Instant {
        self.heard_at + self.settings.idle_timeout()
    }

    /// When to call [`Self::on_time`] at the latest.
    pub fn deadline(&self) -> Instant {
        match &self.phase {
            Phase::AwaitingHello { until } => *until,
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

#[cfg(test)]
mod tests;
