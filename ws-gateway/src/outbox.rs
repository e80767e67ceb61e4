//! The outbox of a device: a bounded queue of outgoing frames. The producer's callbacks, the hub and the connection's own task
//! push to it; the connection's task takes a batch at a time and writes it.
//!
//! An empty outbox allocates nothing, because most connections are idle. Pushing never waits. If a device reads too slowly and
//! its outbox exceeds the limit, the connection is closed; the device syncs after it has reconnected. Answers in parts wait for
//! [`Outbox::room`] before they add a part, so that a page never overflows an outbox.

mod frames;

pub use frames::{Encoded, Outgoing, SendId};

use crate::memory::Memory;
use abi::{ApiError, error::ErrorCode};
use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::sync::Notify;

/// What [`Outbox::poll_take`] returns.
#[derive(Debug)]
pub enum Taken {
    /// Frames to write. They count until [`Outbox::written`].
    Frames(VecDeque<Outgoing>),
    /// Close the connection, after the frames of [`Outbox::take`].
    Close(ApiError),
}

/// Bytes of frames.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    /// Against the limit of the connection.
    all: usize,
    /// Without the bytes that other connections share.
    own: usize,
}

impl Size {
    fn of(outgoing: &Outgoing) -> Self {
        Self { all: outgoing.size(), own: outgoing.own_size() }
    }

    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.own += other.own;
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Outgoing>,
    queued: Size,
    /// Frames that were taken and are not written yet.
    writing: Size,
    close: Option<ApiError>,
    waker: Option<Waker>,
}

impl State {
    fn bytes(&self) -> usize {
        self.queued.all + self.writing.all
    }

    fn take_all(&mut self) -> VecDeque<Outgoing> {
        let size = mem::take(&mut self.queued);
        self.writing.add(size);
        mem::take(&mut self.queue)
    }
}

/// The outgoing frames of one connection; see the module.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    max_bytes: usize,
    memory: Arc<Memory>,
    /// Refusals of sends that were in flight, and those of them that the protocol had processed when the current send began.
    refusals: AtomicU32,
    known_refusals: AtomicU32,
    /// Notified after a write.
    room: Notify,
}

impl Outbox {
    /// An empty outbox that holds at most `max_bytes`, and counts them in the gateway's `memory`.
    pub fn new(max_bytes: usize, memory: Arc<Memory>) -> Self {
        Self {
            state: Mutex::default(),
            max_bytes,
            memory,
            refusals: AtomicU32::new(0),
            known_refusals: AtomicU32::new(0),
            room: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, so the state is consistent even if the lock is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame. Beyond the limit it drops all frames and requests a close. A connection that is being closed ignores it.
    pub fn push(&self, outgoing: Outgoing) {
        self.add(self.state(), outgoing);
    }

    /// Adds a frame in front of all others.
    pub fn push_first(&self, outgoing: Outgoing) {
        let mut state = self.state();
        let size = Size::of(&outgoing);
        state.queued.add(size);
        state.queue.push_front(outgoing);
        self.memory.add(size.own);
        wake(state);
    }

    /// Adds the refusal of a send that was in flight. The protocol processes it when it is taken.
    pub fn push_refusal(&self, id: SendId, error: ApiError) {
        let state = self.state();
        self.refusals.fetch_add(1, Ordering::Relaxed);
        self.add(state, Outgoing::Refused { id, error });
    }

    /// Whether a send in flight was refused and the protocol did not know when the current send began.
    pub fn has_refusal(&self) -> bool {
        self.refusals.load(Ordering::Relaxed) != self.known_refusals.load(Ordering::Relaxed)
    }

    /// Begins a send. `known_refusals` is the number of [`Outgoing::Refused`] that the protocol has processed.
    pub fn begin_send(&self, known_refusals: u32) {
        self.known_refusals.store(known_refusals, Ordering::Relaxed);
    }

    fn add(&self, mut state: MutexGuard<'_, State>, outgoing: Outgoing) {
        if state.close.is_some() {
            return;
        }
        let size = Size::of(&outgoing);
        state.queued.add(size);
        state.queue.push_back(outgoing);
        self.memory.add(size.own);
        if state.bytes() > self.max_bytes {
            self.give_up(state);
        } else {
            wake(state);
        }
    }

    /// Drops the queue and closes: the device reads too slowly.
    pub fn close_too_slow(&self) {
        self.give_up(self.state());
    }

    fn give_up(&self, mut state: MutexGuard<'_, State>) {
        let size = mem::take(&mut state.queued);
        self.memory.remove(size.own);
        let dropped = mem::take(&mut state.queue);
        let too_slow = "the device reads too slowly; connect again and sync";
        state.close.get_or_insert(ApiError::new(ErrorCode::TooSlow, too_slow));
        wake(state);
        drop(dropped);
    }

    /// Drops all frames of a connection that has ended, and ignores further ones.
    pub fn discard(&self) {
        let mut state = self.state();
        state.close.get_or_insert_with(|| ApiError::unavailable("the connection has ended"));
        let size = mem::take(&mut state.queued).own + mem::take(&mut state.writing).own;
        self.memory.remove(size);
        state.queue = VecDeque::new();
    }

    /// Requests that the connection be closed after the queued frames are written. Only the first reason counts.
    pub fn close(&self, error: ApiError) {
        let mut state = self.state();
        state.close.get_or_insert(error);
        wake(state);
    }

    /// Bytes that are queued or being written. `None` if the connection is being closed.
    pub fn queued_bytes(&self) -> Option<usize> {
        let state = self.state();
        state.close.is_none().then(|| state.bytes())
    }

    /// Waits until fewer than `bytes` are queued or being written.
    pub async fn room(&self, bytes: usize) {
        loop {
            let written = self.room.notified();
            if self.state().bytes() < bytes {
                return;
            }
            written.await;
        }
    }

    /// Takes frames of about `max_bytes`, at least one, as soon as there are any. With `can_take` false it waits for a close
    /// only. Only one task may poll.
    pub fn poll_take(&self, cx: &mut Context<'_>, can_take: bool, max_bytes: usize) -> Poll<Taken> {
        let mut state = self.state();
        if let Some(error) = &state.close {
            return Poll::Ready(Taken::Close(error.clone()));
        }
        if can_take && !state.queue.is_empty() {
            return Poll::Ready(Taken::Frames(take(&mut state, max_bytes)));
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Takes frames like [`Self::poll_take`], also from a connection that is being closed. None if there are none.
    pub fn take(&self, max_bytes: usize) -> VecDeque<Outgoing> {
        take(&mut self.state(), max_bytes)
    }

    /// The frames that were taken are written.
    pub fn written(&self) {
        let size = mem::take(&mut self.state().writing);
        self.memory.remove(size.own);
        self.room.notify_waiters();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.memory.remove(state.queued.own + state.writing.own);
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn take(state: &mut State, max_bytes: usize) -> VecDeque<Outgoing> {
    if state.queued.all <= max_bytes {
        return state.take_all();
    }
    let (mut frames, mut size) = (VecDeque::new(), Size::default());
    while let Some(outgoing) = state.queue.front()
        && (frames.is_empty() || size.all + outgoing.size() <= max_bytes)
    {
        size.add(Size::of(outgoing));
        frames.extend(state.queue.pop_front());
    }
    state.queued.all -= size.all;
    state.queued.own -= size.own;
    state.writing.add(size);
    frames
}

#[cfg(test)]
mod tests;
