//! What waits to be written to one device: a bounded queue that the log's, the hub's and the connection's own task fill
//! and the connection's task empties in one go.
//!
//! It costs nothing while it is empty: an idle connection is the common one. Whoever fills it never waits; a device that
//! lets it grow beyond its bound is closed and catches up later.

use abi::{
    ApiError,
    error::ErrorCode,
    v1::{Ack, ServerFrame},
};
use axum::extract::ws::Message;
use std::{
    collections::VecDeque,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use utils::trace::Spans;

/// Something to write.
#[derive(Debug)]
pub enum Outgoing {
    /// A frame that is encoded already.
    Encoded(Message),
    /// A frame with entries, encoded already.
    Delivery {
        /// The frame.
        frame: Message,
        /// When the oldest of the entries was taken by a gateway, milliseconds since 1970-01-01 UTC.
        sent_at_ms: i64,
        /// Of those of its messages that are followed, until it is written.
        writing: Spans,
    },
    /// An answer of the session.
    Frame(Box<ServerFrame>),
    /// What became of a `send`; one place among those in flight is free again.
    Sent {
        /// Id of the request.
        id: u32,
        /// The ack, or why there is none.
        result: Result<Ack, ApiError>,
    },
}

impl Outgoing {
    /// About how many bytes it takes; frames of the session are small and few.
    pub fn size(&self) -> usize {
        match self {
            Self::Encoded(frame) | Self::Delivery { frame, .. } => match frame {
                Message::Binary(bytes) => bytes.len(),
                Message::Text(text) => text.len(),
                _ => 16,
            },
            Self::Frame(_) => 256,
            Self::Sent { .. } => 96,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Outgoing>,
    bytes: usize,
    /// A refusal waits of which the connection's task does not know.
    refused: bool,
    close: Option<ApiError>,
    waker: Option<Waker>,
}

/// The queue; see the module.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    max_bytes: usize,
}

/// All that was waiting.
#[derive(Debug, Default)]
pub struct Drained {
    /// To write, oldest first.
    pub frames: VecDeque<Outgoing>,
    /// Then close, for this reason.
    pub close: Option<ApiError>,
}

impl Outbox {
    /// An empty outbox that takes `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), max_bytes }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way, so what a poisoned lock guards is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds something to write. After [`Self::close`] it is dropped: the device catches up.
    pub fn push(&self, outgoing: Outgoing) {
        self.add(self.state(), outgoing);
    }

    /// Adds that a send that was in flight is refused. The session hears of it when it is drained.
    pub fn push_refusal(&self, id: u32, fault: ApiError) {
        let mut state = self.state();
        state.refused = true;
        self.add(state, Outgoing::Sent { id, result: Err(fault) });
    }

    /// Whether a send in flight was refused of which the session has not heard yet.
    pub fn has_refusal(&self) -> bool {
        self.state().refused
    }

    fn add(&self, mut state: MutexGuard<'_, State>, outgoing: Outgoing) {
        if state.close.is_some() {
            return;
        }
        state.bytes += outgoing.size();
        state.queue.push_back(outgoing);
        if state.bytes > self.max_bytes {
            state.queue = VecDeque::new();
            state.close = Some(ApiError::new(
                ErrorCode::TooSlow,
                "the device takes frames too slowly; it catches up later",
            ));
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Asks for the connection to be closed after what is waiting. The first reason stays.
    pub fn close(&self, fault: ApiError) {
        let mut state = self.state();
        state.close.get_or_insert(fault);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes all that is waiting, as soon as there is something. For one task only.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<Drained> {
        let mut state = self.state();
        if state.queue.is_empty() && state.close.is_none() {
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        state.bytes = 0;
        state.refused = false;
        Poll::Ready(Drained { frames: mem::take(&mut state.queue), close: state.close.clone() })
    }

    /// Whether the connection is to be closed because its device is too slow; what can't be written must not be waited for.
    pub fn poll_overflow(&self, cx: &mut Context<'_>) -> Poll<ApiError> {
        let mut state = self.state();
        match &state.close {
            Some(fault) => Poll::Ready(fault.clone()),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    fn frame(bytes: usize) -> Outgoing {
        Outgoing::Encoded(Message::Binary(vec![0; bytes].into()))
    }

    #[tokio::test]
    async fn what_was_pushed_is_drained_in_order_and_at_once() {
        let outbox = Outbox::new(1_000);
        outbox.push(frame(1));
        outbox.push(frame(2));
        let drained = poll_fn(|cx| outbox.poll_drain(cx)).await;
        assert_eq!(drained.frames.iter().map(Outgoing::size).collect::<Vec<_>>(), [1, 2]);
        assert!(drained.close.is_none());
    }

    #[tokio::test]
    async fn p7_a_slow_device_is_closed_and_what_waited_is_dropped() {
        let outbox = Outbox::new(1_000);
        for _ in 0..100 {
            outbox.push(frame(100));
        }
        let drained = poll_fn(|cx| outbox.poll_drain(cx)).await;
        assert!(drained.frames.is_empty());
        assert_eq!(drained.close.unwrap().code, ErrorCode::TooSlow);
    }

    #[tokio::test]
    async fn p3_a_refusal_is_known_until_it_is_drained_also_when_nobody_will_write_it() {
        let outbox = Outbox::new(1_000);
        assert!(!outbox.has_refusal());
        outbox.push_refusal(1, ApiError::unavailable("not now"));
        assert!(outbox.has_refusal());
        assert_eq!(poll_fn(|cx| outbox.poll_drain(cx)).await.frames.len(), 1);
        assert!(!outbox.has_refusal());
        outbox.close(ApiError::new(ErrorCode::GoingAway, "drain"));
        outbox.push_refusal(2, ApiError::unavailable("not now"));
        assert!(outbox.has_refusal());
    }

    #[tokio::test]
    async fn the_first_reason_to_close_stays_and_what_waited_is_written_first() {
        let outbox = Outbox::new(1_000);
        outbox.push(frame(5));
        outbox.close(ApiError::new(ErrorCode::GoingAway, "drain"));
        outbox.close(ApiError::new(ErrorCode::Replaced, "other"));
        outbox.push(frame(6));
        let drained = poll_fn(|cx| outbox.poll_drain(cx)).await;
        assert_eq!(drained.frames.len(), 1);
        assert_eq!(drained.close.unwrap().code, ErrorCode::GoingAway);
    }
}
