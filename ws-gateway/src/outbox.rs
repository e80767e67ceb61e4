//! The outbox of a device: a bounded queue of outgoing frames. The producer's callbacks, the hub and the connection's own task
//! push to it; the connection's task drains it all at once.
//!
//! An empty outbox allocates nothing, because most connections are idle. Pushing never waits. If a device reads too slowly and
//! its outbox exceeds the limit, the connection is closed; the device syncs after it has reconnected.

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

/// A frame to write.
#[derive(Debug)]
pub enum Outgoing {
    /// An encoded frame.
    Encoded(Message),
    /// An encoded frame with entries.
    Delivery {
        /// The frame.
        frame: Message,
        /// When a gateway accepted the oldest of the entries, milliseconds since 1970-01-01 UTC.
        sent_at_ms: i64,
        /// Spans of the traced messages in it. They end when the frame is written.
        writing: Spans,
    },
    /// The answer to a request.
    Frame(Box<ServerFrame>),
    /// The answer to a `send`, which is then no longer in flight.
    Sent {
        /// Id of the request.
        id: u32,
        /// The ack, or the error.
        result: Result<Ack, ApiError>,
    },
}

impl Outgoing {
    /// Approximate size in bytes. Frames other than deliveries are few and small.
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
    /// The queue has a refusal that the protocol has not processed yet.
    has_refusal: bool,
    close: Option<ApiError>,
    waker: Option<Waker>,
}

/// The outgoing frames of one connection; see the module.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    max_bytes: usize,
}

/// The content of a drained outbox.
#[derive(Debug, Default)]
pub struct Drained {
    /// Frames to write, oldest first.
    pub frames: VecDeque<Outgoing>,
    /// If set, close the connection for this reason after the frames are written.
    pub close: Option<ApiError>,
}

impl Outbox {
    /// An empty outbox for at most `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), max_bytes }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so the state is consistent even if the lock is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame. After [`Self::close`] the frame is dropped; the device syncs after it has reconnected.
    pub fn push(&self, outgoing: Outgoing) {
        self.add(self.state(), outgoing);
    }

    /// Adds the refusal of a send that was in flight. The protocol processes it after the outbox is drained.
    pub fn push_refusal(&self, id: u32, error: ApiError) {
        let mut state = self.state();
        state.has_refusal = true;
        self.add(state, Outgoing::Sent { id, result: Err(error) });
    }

    /// Whether a send in flight was refused and the protocol has not processed the refusal yet.
    pub fn has_refusal(&self) -> bool {
        self.state().has_refusal
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
                "the device reads too slowly; connect again and sync",
            ));
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Requests that the connection be closed after the queued frames are written. Only the first reason counts.
    pub fn close(&self, error: ApiError) {
        let mut state = self.state();
        state.close.get_or_insert(error);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes everything in the queue as soon as it is not empty. Only one task may poll.
    pub fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<Drained> {
        let mut state = self.state();
        if state.queue.is_empty() && state.close.is_none() {
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        state.bytes = 0;
        state.has_refusal = false;
        Poll::Ready(Drained { frames: mem::take(&mut state.queue), close: state.close.clone() })
    }

    /// Ready once the connection must be closed, so that a write to a device that does not read is abandoned.
    pub fn poll_close(&self, cx: &mut Context<'_>) -> Poll<ApiError> {
        let mut state = self.state();
        match &state.close {
            Some(error) => Poll::Ready(error.clone()),
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
    async fn pushed_frames_are_drained_in_order_and_all_at_once() {
        let outbox = Outbox::new(1_000);
        outbox.push(frame(1));
        outbox.push(frame(2));
        let drained = poll_fn(|cx| outbox.poll_drain(cx)).await;
        assert_eq!(drained.frames.iter().map(Outgoing::size).collect::<Vec<_>>(), [1, 2]);
        assert!(drained.close.is_none());
    }

    #[tokio::test]
    async fn p7_a_slow_device_is_closed_and_its_queue_is_dropped() {
        let outbox = Outbox::new(1_000);
        for _ in 0..100 {
            outbox.push(frame(100));
        }
        let drained = poll_fn(|cx| outbox.poll_drain(cx)).await;
        assert!(drained.frames.is_empty());
        assert_eq!(drained.close.unwrap().code, ErrorCode::TooSlow);
    }

    #[tokio::test]
    async fn p3_a_refusal_is_visible_until_it_is_drained_even_after_a_close() {
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
    async fn the_first_close_reason_wins_and_queued_frames_are_written_first() {
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
