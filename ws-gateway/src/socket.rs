//! The I/O of a connection: one task, one stream, one outbox around a [`Protocol`].
//!
//! The task reads, writes and works on requests at the same time: none of them waits for another. An idle connection costs the
//! memory of this task. Futures that are large and rare (calls to other services) are boxed, so that they use memory only while
//! they run.

mod batch;
mod closing;
mod work;

use crate::{
    backend::Backend,
    codec::Format,
    hub::Connection,
    metrics,
    outbox::{Outbox, Outgoing, Taken},
    protocol::Protocol,
    websocket::{Incoming, ReadError, Reader, Writer, put_message, with_batch},
};
use abi::{ApiError, error::ErrorCode};
use axum::extract::ws::Message;
use batch::Batch;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep},
};
use work::{Finished, Work};

/// Most bytes of frames that are put together for one write, unless a single frame is larger.
const BATCH: usize = 16 << 10;

/// Why the loop ended.
enum End {
    /// The device has closed the connection, with this code if it gave one.
    Closed(Option<u16>),
    /// The stream failed, or took no bytes for too long.
    Gone,
    /// The gateway closes the connection.
    Close(ApiError),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        tracing::debug!(%error, "socket failed");
        Self::Gone
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => error.into(),
            ReadError::TooLarge { .. } => Self::Close(ApiError::new(ErrorCode::TooLarge, error.to_string())),
            ReadError::Invalid(_) => Self::Close(ApiError::invalid(error.to_string())),
        }
    }
}

/// Something that happened to a connection.
enum Event {
    /// A batch is written.
    Written(Batch),
    /// Work that had been started is finished.
    Finished(Finished),
    /// The device sent something.
    Incoming(Incoming),
    /// The timer fired.
    Time,
}

struct Socket<S> {
    backend: Arc<Backend>,
    stream: S,
    reader: Reader,
    writer: Writer,
    /// The frames that are being written.
    batch: Option<Batch>,
    /// Payload of the last ping, to be repeated in a pong.
    pong: Option<Bytes>,
    protocol: Protocol,
    outbox: Arc<Outbox>,
    /// Number of late refusals that the protocol knows; see [`Outbox::begin_send`].
    known_refusals: u32,
    format: Format,
    connection: Option<Arc<Connection>>,
    /// Work that did not finish at once. Allocated on demand.
    work: Option<Box<FuturesUnordered<Work>>>,
    /// A recheck of the session is among the work, and db-service has not answered it yet.
    is_rechecking: bool,
    /// A frame that arrived during authentication.
    early: Option<Message>,
    /// Set to an earlier deadline, which may have moved since. Deadlines only move forward while a device is connected, so the
    /// timer is reset when it fires, not with every frame.
    timer: Pin<Box<Sleep>>,
    /// When the connection is given up if the stream takes no bytes until then.
    stalled_at: Option<Instant>,
    /// Since when no frames are read, if a conversation is on hold.
    paused_at: Option<Instant>,
    /// Reading and writing take turns, so that neither can starve the other.
    reads_first: bool,
}

/// Serves a WebSocket until it is closed.
pub async fn serve<S>(backend: Arc<Backend>, stream: S, format: Format)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let limits = backend.limits();
    let protocol = Protocol::new(backend.settings().clone(), Instant::now());
    let outbox = Outbox::new(limits.max_outbox, backend.connections().hub().memory().clone());
    let mut socket = Socket {
        timer: Box::pin(tokio::time::sleep_until(protocol.deadline())),
        backend,
        stream,
        reader: Reader::new(limits.max_frame),
        writer: Writer::default(),
        batch: None,
        pong: None,
        protocol,
        outbox: Arc::new(outbox),
        known_refusals: 0,
        format,
        connection: None,
        work: None,
        is_rechecking: false,
        early: None,
        stalled_at: None,
        paused_at: None,
        reads_first: false,
    };
    metrics::connections().increment(1);
    let end = socket.run().await;
    Box::pin(socket.finish(end)).await;
    metrics::connections().decrement(1);
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket<S> {
    async fn run(&mut self) -> End {
        loop {
            let handled = match poll_fn(|cx| self.poll_event(cx)).await {
                Ok(event) => self.handle(event).await,
                Err(end) => return end,
            };
            if let Err(end) = handled {
                return end;
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, End>> {
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(Event::Time));
        }
        if let Some(work) = &mut self.work {
            match work.poll_next_unpin(cx) {
                Poll::Ready(Some(finished)) => return Poll::Ready(Ok(Event::Finished(finished))),
                Poll::Ready(None) => self.work = None,
                Poll::Pending => {}
            }
        }
        self.reads_first = !self.reads_first;
        if self.reads_first {
            let read = self.poll_read(cx);
            if read.is_ready() { read } else { self.poll_write(cx) }
        } else {
            let written = self.poll_write(cx);
            if written.is_ready() { written } else { self.poll_read(cx) }
        }
    }

    /// Writes the queued frames. Ready after each batch.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, End>> {
        loop {
            let is_written = self.writer.poll_flush(&mut self.stream, cx)?.is_ready();
            self.watch_progress(is_written);
            if is_written && let Some(batch) = self.batch.take() {
                return Poll::Ready(Ok(Event::Written(batch)));
            }
            // Deliveries may be queued before the device is welcomed. They wait, because welcome must be the first frame.
            let can_take = is_written && self.connection.is_some();
            let frames = match self.outbox.poll_take(cx, can_take, BATCH) {
                Poll::Ready(Taken::Frames(frames)) => frames,
                Poll::Ready(Taken::Close(error)) => return Poll::Ready(Err(End::Close(error))),
                Poll::Pending if is_written && self.pong.is_some() => VecDeque::new(),
                Poll::Pending => return Poll::Pending,
            };
            self.start_batch(cx, frames)?;
        }
    }

    fn start_batch(&mut self, cx: &mut Context<'_>, frames: VecDeque<Outgoing>) -> io::Result<()> {
        let batch = with_batch(|bytes| {
            if let Some(payload) = self.pong.take() {
                put_message(bytes, &Message::Pong(payload));
            }
            let batch = Batch::encode(frames, self.format, bytes);
            self.writer.start(&mut self.stream, cx, bytes).map(|()| batch)
        })?;
        for (id, error) in &batch.refused {
            self.protocol.refused(*id, error);
            self.known_refusals = self.known_refusals.wrapping_add(1);
        }
        self.batch = Some(batch);
        Ok(())
    }

    /// Judges a write by its progress: a slow device is served as long as it takes bytes.
    fn watch_progress(&mut self, is_written: bool) {
        let has_progressed = self.writer.take_progress();
        if is_written {
            self.stalled_at = None;
        } else if has_progressed || self.stalled_at.is_none() {
            let now = Instant::now();
            self.stalled_at = Some(now + self.backend.settings().idle_timeout());
            if has_progressed && !self.may_read() {
                // The pings of the device may be in the socket, unread.
                self.protocol.on_sign_of_life(now);
            }
        }
    }

    /// Reads while frames can be handled.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, End>> {
        let may_read = self.may_read();
        self.watch_pause(may_read);
        if !may_read {
            return Poll::Pending;
        }
        if self.protocol.can_read()
            && let Some(message) = self.early.take()
        {
            return Poll::Ready(Ok(Event::Incoming(Incoming::Message(message))));
        }
        match ready!(self.reader.poll_next(&mut self.stream, cx)) {
            Some(Ok(incoming)) => Poll::Ready(Ok(Event::Incoming(incoming))),
            Some(Err(error)) => Poll::Ready(Err(error.into())),
            None => Poll::Ready(Err(End::Gone)),
        }
    }

    /// Backpressure: frames stay in the socket while too many are unanswered, or while the device does not take the answers.
    fn may_read(&self) -> bool {
        let can_handle =
            self.protocol.can_read() || self.protocol.is_authenticating() && self.early.is_none();
        can_handle && (self.writer.is_idle() || !self.is_backed_up())
    }

    fn is_backed_up(&self) -> bool {
        self.outbox.queued_bytes().is_some_and(|bytes| bytes > self.backend.limits().max_frame)
    }

    fn watch_pause(&mut self, may_read: bool) {
        if may_read {
            if let Some(paused_at) = self.paused_at.take() {
                self.protocol.not_read_for(paused_at.elapsed());
            }
        } else if self.paused_at.is_none() && self.protocol.has_holds() {
            self.paused_at = Some(Instant::now());
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Written(batch) => {
                self.outbox.written();
                self.protocol.written(&batch.answered, Instant::now);
                batch.record_deliveries();
                Ok(())
            }
            Event::Finished(finished) => {
                self.on_finished(finished)?;
                self.perform(None).await
            }
            Event::Incoming(Incoming::Close(code)) => Err(End::Closed(code)),
            Event::Incoming(Incoming::Ping(payload)) => {
                self.pong = Some(payload);
                self.protocol.on_sign_of_life(Instant::now());
                Ok(())
            }
            Event::Incoming(Incoming::Pong) => {
                self.protocol.on_sign_of_life(Instant::now());
                Ok(())
            }
            Event::Incoming(Incoming::Message(message)) if self.protocol.is_authenticating() => {
                self.early = Some(message);
                Ok(())
            }
            Event::Incoming(Incoming::Message(message)) => self.on_message(message).await,
            Event::Time => self.on_time().await,
        }
    }

    async fn on_message(&mut self, message: Message) -> Result<(), End> {
        let frame = self.format.decode(&message);
        drop(message);
        let step = self.protocol.on_frame(frame, Instant::now());
        self.perform(step).await
    }

    async fn on_time(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if self.stalled_at.is_some_and(|stalled_at| now >= stalled_at) {
            tracing::debug!("the device takes no bytes");
            return Err(End::Gone);
        }
        let due = self.protocol.on_time(now);
        let deadline = self.protocol.deadline();
        self.timer.as_mut().reset(self.stalled_at.map_or(deadline, |stalled_at| deadline.min(stalled_at)));
        match due {
            Some(step) => self.perform(Some(step)).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
