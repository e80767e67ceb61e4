//! Writes frames, as many at a time as the socket takes.

use axum::extract::ws::{CloseFrame, Message};
use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

thread_local! {
    /// Frames on their way into a socket. One per thread: only what a socket does not take is kept for its connection.
    static BATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with an empty buffer in which frames are put together for one write.
pub fn with_batch<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    BATCH.with_borrow_mut(|batch| {
        batch.clear();
        work(batch)
    })
}

/// Appends a message or a control frame, as one frame. A reason in a close frame has at most 123 bytes.
pub fn put_message(batch: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Text(text) => put(batch, OpCode::Data(Data::Text), text.as_bytes()),
        Message::Binary(bytes) => put(batch, OpCode::Data(Data::Binary), bytes),
        Message::Ping(payload) => put(batch, OpCode::Control(Control::Ping), payload),
        Message::Pong(payload) => put(batch, OpCode::Control(Control::Pong), payload),
        Message::Close(None) => put(batch, OpCode::Control(Control::Close), &[]),
        Message::Close(Some(CloseFrame { code, reason })) => {
            let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
            put(batch, OpCode::Control(Control::Close), &payload);
        }
    }
}

fn put(batch: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header.format(payload.len() as u64, batch).expect("a Vec takes every write");
    batch.extend_from_slice(payload);
}

/// Writes batches of frames. Holds nothing while the socket takes everything.
#[derive(Debug, Default)]
pub struct Writer {
    /// The batch from the first byte that the socket did not take at first.
    rest: Vec<u8>,
    /// Bytes of `rest` that are written.
    written: usize,
    is_unflushed: bool,
    has_progressed: bool,
}

impl Writer {
    /// Whether everything is written and flushed.
    pub fn is_idle(&self) -> bool {
        self.rest.is_empty() && !self.is_unflushed
    }

    /// Whether the socket has taken bytes since the last call.
    pub fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.has_progressed)
    }

    /// Bytes in memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.rest.capacity()
    }

    /// Begins to write a batch. The earlier ones must be written.
    ///
    /// # Errors
    /// The socket failed.
    pub fn start(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
        batch: &[u8],
    ) -> io::Result<()> {
        debug_assert!(self.rest.is_empty(), "the last batch is not written");
        let mut written = 0;
        while written < batch.len() {
            match Pin::new(&mut *stream).poll_write(cx, &batch[written..]) {
                Poll::Ready(taken) => written += not_zero(taken?)?,
                Poll::Pending => break,
            }
        }
        self.is_unflushed = true;
        self.has_progressed |= written > 0;
        self.rest = batch[written..].to_vec();
        self.written = 0;
        Ok(())
    }

    /// Writes the rest and flushes. Ready once that is done.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_flush(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.written < self.rest.len() {
            let taken = ready!(Pin::new(&mut *stream).poll_write(cx, &self.rest[self.written..]));
            self.written += not_zero(taken?)?;
            self.has_progressed = true;
        }
        self.rest = Vec::new();
        self.written = 0;
        if self.is_unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

fn not_zero(taken: usize) -> io::Result<usize> {
    match taken {
        0 => Err(io::ErrorKind::WriteZero.into()),
        taken => Ok(taken),
    }
}
