//! The state machine of a WebSocket session: typed frames and the time go in, steps come out. It has no socket, no clock and
//! no backend, so every rule of the protocol is tested here.

mod order;

use crate::hub::Identity;
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{ClientFrame, GetHeads, GetHistory, Hello, MarkRead, Send, client_frame::Frame},
};
use order::Order;
use std::time::Duration;
use tokio::time::Instant;
use utils::rate::TokenBucket;

/// What a session goes by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A device has so long to say hello.
    pub hello_timeout: Duration,
    /// A device sends a heartbeat this often.
    pub heartbeat: Duration,
    /// Whether the log-in is still good is asked again this often.
    pub recheck: Duration,
    /// Most unanswered sends.
    pub max_in_flight: u32,
    /// Requests other than sends: per second, and at once.
    pub requests: (u32, u32),
}

/// What the connection does next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Check the token, register the connection, say welcome; then tell [`Session::welcomed`].
    Authenticate(u32, Hello),
    /// Check and log a message. It is in flight until [`Session::answered`].
    Send(u32, Send),
    /// Answer a request.
    Answer(u32, Request),
    /// Answer with an error and go on.
    Refuse(u32, ApiError),
    /// Renew the route of the connection.
    Renew,
    /// Ask whether the log-in is still good.
    Recheck,
    /// Close.
    Close(ApiError),
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

/// One session; see the module.
#[derive(Debug)]
pub struct Session {
    settings: std::sync::Arc<Settings>,
    phase: Phase,
    heard_at: Instant,
    sends: Order,
    requests: TokenBucket,
}

impl Session {
    /// A session whose socket was opened now.
    pub fn new(settings: std::sync::Arc<Settings>, now: Instant) -> Self {
        let (rate, burst) = settings.requests;
        Self {
            phase: Phase::AwaitingHello { until: now + settings.hello_timeout },
            requests: TokenBucket::new(rate, burst, now),
            heard_at: now,
            sends: Order::default(),
            settings,
        }
    }

    /// Who it is, once it was welcomed.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.phase {
            Phase::AwaitingHello { .. } => None,
            Phase::Live { identity, .. } => Some(identity),
        }
    }

    /// Whether another frame may be read: with too many sends unanswered the device waits.
    pub fn can_read(&self) -> bool {
        self.sends.in_flight() < self.settings.max_in_flight as usize
    }

    /// Something arrived that is not a frame of ours, such as a WebSocket ping.
    pub fn on_sign_of_life(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// A frame arrived, or something that should have been one.
    pub fn on_frame(&mut self, frame: Result<ClientFrame, ApiError>, now: Instant) -> Step {
        self.heard_at = now;
        let frame = match frame {
            Ok(frame) => frame,
            Err(fault) => return self.refuse(0, fault, now),
        };
        let id = frame.id;
        let Some(content) = frame.frame else {
            return self.refuse(
                id,
                ApiError::invalid("the frame is empty, or of a kind that this server does not know"),
                now,
            );
        };
        match (&self.phase, content) {
            (Phase::AwaitingHello { .. }, Frame::Hello(hello)) => Step::Authenticate(id, hello),
            (Phase::AwaitingHello { .. }, _) => Step::Close(ApiError::new(
                ErrorCode::Unauthenticated,
                "the first frame must be hello, with a token",
            )),
            (Phase::Live { .. }, Frame::Hello(_)) => self.refuse(
                id,
                ApiError::invalid("hello was said before; open another connection for another token"),
                now,
            ),
            (Phase::Live { .. }, Frame::Send(send)) => match self.sends.begin(id, &send, now) {
                Ok(()) => Step::Send(id, send),
                Err(fault) => Step::Refuse(id, fault),
            },
            (Phase::Live { .. }, Frame::Heads(heads)) => self.request(id, Request::Heads(heads), now),
            (Phase::Live { .. }, Frame::History(history)) => self.request(id, Request::History(history), now),
            (Phase::Live { .. }, Frame::Read(read)) => self.request(id, Request::Read(read), now),
            (Phase::Live { .. }, Frame::Ping(_)) => self.request(id, Request::Ping, now),
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

    /// Errors cost a request too, or a device that sends nonsense would be served without a limit.
    fn refuse(&mut self, id: u32, fault: ApiError, now: Instant) -> Step {
        if self.identity().is_none() {
            return Step::Close(fault);
        }
        match self.requests.try_take(1, now) {
            Ok(()) => Step::Refuse(id, fault),
            Err(wait) => Step::Close(ApiError::rate_limited("too many bad frames on this connection", wait)),
        }
    }

    /// The device was let in.
    pub fn welcomed(&mut self, identity: Identity, now: Instant) {
        self.phase = Phase::Live {
            identity,
            renew_at: now + self.settings.heartbeat,
            recheck_at: now + self.settings.recheck,
        };
    }

    /// The route was renewed, by a heartbeat or by [`Step::Renew`].
    pub fn renewed(&mut self, now: Instant) {
        if let Phase::Live { renew_at, .. } = &mut self.phase {
            *renew_at = now + self.settings.heartbeat;
        }
    }

    /// A send is refused: what comes after it in its conversation must not overtake it. To be told as soon as it is known.
    pub fn refused(&mut self, id: u32, fault: &ApiError) {
        self.sends.refused(id, fault);
    }

    /// Whether [`Self::written`] and [`Self::was_busy`] need to be told.
    pub fn is_holding(&self) -> bool {
        self.sends.is_holding()
    }

    /// The answers that it was told of are written.
    pub fn written(&mut self, now: Instant) {
        self.sends.written(now);
    }

    /// For so long nothing was read, because something else was done.
    pub fn was_busy(&mut self, time: Duration) {
        self.sends.was_busy(time);
    }

    /// A send was answered, with an ack or an error.
    pub fn answered(&mut self, id: u32) {
        self.sends.answered(id);
    }

    fn silent_until(&self) -> Instant {
        self.heard_at + self.settings.heartbeat * 5 / 2
    }

    /// When [`Self::on_time`] has something to say at the latest.
    pub fn deadline(&self) -> Instant {
        match &self.phase {
            Phase::AwaitingHello { until } => *until,
            Phase::Live { renew_at, recheck_at, .. } => self.silent_until().min(*renew_at).min(*recheck_at),
        }
    }

    /// Time has passed.
    pub fn on_time(&mut self, now: Instant) -> Option<Step> {
        let silent_until = self.silent_until();
        match &mut self.phase {
            Phase::AwaitingHello { until } if now >= *until => {
                let seconds = self.settings.hello_timeout.as_secs_f32();
                Some(Step::Close(ApiError::new(
                    ErrorCode::HelloTimeout,
                    format!("no hello within {seconds} s of opening the connection"),
                )))
            }
            Phase::Live { .. } if now >= silent_until => Some(Step::Close(ApiError::new(
                ErrorCode::IdleTimeout,
                "nothing was heard from the device for two and a half heartbeats",
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
