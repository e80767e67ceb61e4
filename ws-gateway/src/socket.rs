//! The I/O of a connection: one task, one WebSocket, one outbox around a [`Protocol`].
//!
//! An idle connection costs the memory of this task and of the socket's buffers. Futures that are large and rare (calls to
//! other services) are boxed, so that they use memory only while they run.

use crate::{
    backend::Backend,
    codec::Format,
    hub::Connection,
    metrics,
    outbox::{Drained, Outbox, Outgoing},
    protocol::{Answers, Done, Protocol, Step},
    send,
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{Hello, ServerFrame, server_frame::Frame},
};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _, future::OptionFuture};
use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, Sleep, timeout};
use tokio_tungstenite::tungstenite;
use utils::{clock::now_ms, trace::Spans};

/// How long the gateway tries to send the reason of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + std::marker::Send + 'a>>;

/// Why the loop ended.
enum End {
    /// The device has closed the connection, or the socket failed.
    Gone,
    /// The gateway closes the connection.
    Close(ApiError),
}

impl From<axum::Error> for End {
    fn from(error: axum::Error) -> Self {
        use tungstenite::{Error, error::ProtocolError};
        match error.into_inner().downcast::<Error>().map(|error| *error) {
            Ok(Error::Capacity(error)) => {
                let sentence = format!("the frame is larger than this server accepts: {error}");
                Self::Close(ApiError::new(ErrorCode::TooLarge, sentence))
            }
            Ok(Error::Utf8(error)) => {
                Self::Close(ApiError::invalid(format!("the text frame is not UTF-8: {error}")))
            }
            Ok(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Self::Gone,
            Ok(Error::Protocol(error)) => {
                Self::Close(ApiError::invalid(format!("not a WebSocket frame: {error}")))
            }
            Ok(error) => {
                tracing::debug!(%error, "socket failed");
                Self::Gone
            }
            Err(error) => {
                tracing::debug!(error, "socket failed");
                Self::Gone
            }
        }
    }
}

struct Socket {
    backend: Arc<Backend>,
    socket: WebSocket,
    protocol: Protocol,
    outbox: Arc<Outbox>,
    format: Format,
    connection: Option<Arc<Connection>>,
    /// A frame that arrived during authentication.
    early: Option<Message>,
    /// Set to an earlier deadline of the protocol, which may have moved since. After the welcome, deadlines only move forward, so
    /// the timer is reset when it fires, not with every frame.
    timer: Pin<Box<Sleep>>,
    /// A check of the session that db-service has not answered yet. Frames do not wait for it.
    recheck: Option<Boxed<'static, Result<(), ApiError>>>,
}

/// Waits until the device closes the connection. The first frame that arrives is stored in `early` and ends reading.
async fn closed(socket: &mut WebSocket, early: &mut Option<Message>) -> End {
    loop {
        match socket.next().await {
            None | Some(Ok(Message::Close(_))) => return End::Gone,
            Some(Err(error)) => return error.into(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => {
                *early = Some(message);
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Serves a WebSocket until it is closed.
pub async fn serve(backend: Arc<Backend>, socket: WebSocket, format: Format) {
    let protocol = Protocol::new(backend.settings().clone(), Instant::now());
    let outbox = Arc::new(Outbox::new(backend.limits().max_outbox));
    let timer = Box::pin(tokio::time::sleep_until(protocol.deadline()));
    let mut socket = Socket {
        backend,
        socket,
        protocol,
        outbox,
        format,
        connection: None,
        early: None,
        timer,
        recheck: None,
    };
    metrics::connections().increment(1);
    let end = socket.run().await;
    Box::pin(socket.finish(end)).await;
    metrics::connections().decrement(1);
}

impl Socket {
    async fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.turn().await {
                return end;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), End> {
        if let Some(message) = self.early.take() {
            return self.on_message(message).await;
        }
        tokio::select! {
            drained = poll_fn(|cx| self.outbox.poll_drain(cx)) => self.write(drained).await,
            message = self.socket.next(), if self.protocol.can_read() => match message {
                Some(Ok(message)) => self.on_message(message).await,
                Some(Err(error)) => Err(error.into()),
                None => Err(End::Gone),
            },
            Some(checked) = OptionFuture::from(self.recheck.as_mut()), if self.recheck.is_some() => {
                self.recheck = None;
                checked.map_err(End::Close)
            }
            () = &mut self.timer => {
                let now = Instant::now();
                let due = self.protocol.on_time(now);
                self.timer.as_mut().reset(self.protocol.deadline());
                match due {
                    Some(step) => self.perform(step, now).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn on_message(&mut self, message: Message) -> Result<(), End> {
        let now = Instant::now();
        match message {
            Message::Close(_) => Err(End::Gone),
            Message::Ping(_) | Message::Pong(_) => {
                self.protocol.on_control_frame(now);
                Ok(())
            }
            message => {
                let frame = self.format.decode(&message);
                drop(message);
                let step = self.protocol.on_frame(frame, now);
                self.perform(step, now).await
            }
        }
    }

    async fn perform(&mut self, step: Step, began: Instant) -> Result<(), End> {
        let refused = match step {
            Step::Send(id, message) => {
                let connection = self.connection()?;
                let sent: Boxed<'_, _> = Box::pin(send::send(&self.backend, &connection, id, message));
                sent.await.err().map(|error| {
                    connection.outbox.push(Outgoing::Sent { id, result: Err(error.clone()) });
                    (id, error)
                })
            }
            step => {
                self.perform_request(step).await?;
                None
            }
        };
        self.protocol.on_done(Done::Step(refused), began, Instant::now);
        Ok(())
    }

    async fn perform_request(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::Send(..) => {}
            Step::Refuse(id, error) => self.outbox.push(error_frame(id, error)),
            Step::Close(error) => return Err(End::Close(error)),
            Step::Authenticate(id, hello) => Box::pin(self.authenticate(id, hello)).await?,
            Step::Answer(id, request) => {
                let connection = self.connection()?;
                let answer = Box::pin(self.backend.answer(&connection, request)).await;
                self.outbox.push(match answer {
                    Ok(frame) => Outgoing::Frame(Box::new(ServerFrame { id, frame: Some(frame) })),
                    Err(error) => error_frame(id, error),
                });
            }
            Step::Renew => {
                let connection = self.connection()?;
                if let Err(error) = Box::pin(self.backend.connections().renew(&connection)).await {
                    tracing::debug!(%error, "cannot renew a route");
                }
            }
            Step::Recheck => {
                let (backend, connection) = (self.backend.clone(), self.connection()?);
                let check =
                    async move { backend.authentication().recheck_session(&connection.identity).await };
                self.recheck.get_or_insert_with(|| Box::pin(check));
            }
        }
        Ok(())
    }

    fn connection(&self) -> Result<Arc<Connection>, End> {
        self.connection.clone().ok_or(End::Gone)
    }

    async fn authenticate(&mut self, id: u32, hello: Hello) -> Result<(), End> {
        let Self { backend, socket, early, .. } = self;
        let opened = backend.connections().open(hello, self.format, self.outbox.clone());
        let too_late = |_| ApiError::unavailable("the server could not authenticate you in time; try again");
        // Stops when the device disconnects. The device may already have a new connection, which this one must not replace.
        let (connection, welcome) = tokio::select! {
            opened = timeout(backend.settings().hello_timeout, opened) => {
                opened.map_err(too_late).flatten().map_err(End::Close)?
            }
            end = closed(socket, early) => return Err(end),
        };
        self.protocol.welcomed(connection.identity.clone(), Instant::now());
        self.timer.as_mut().reset(self.protocol.deadline());
        self.connection = Some(connection);
        // Bypasses the outbox, which may already hold deliveries: welcome must be the first frame.
        let frame = ServerFrame { id, frame: Some(Frame::Welcome(welcome)) };
        self.socket.send(self.format.encode(&frame)).await.map_err(End::from)
    }

    /// Writes the drained frames with one flush. The write is abandoned when the outbox overflows, when the connection must be
    /// closed, or after the idle timeout.
    async fn write(&mut self, drained: Drained) -> Result<(), End> {
        let began = Instant::now();
        let idle_timeout = self.backend.settings().idle_timeout();
        let written = write(&mut self.socket, self.format, drained.frames);
        if let Some(error) = drained.close {
            let _ = timeout(CLOSE_TIMEOUT, written).await;
            return Err(End::Close(error));
        }
        let answers = tokio::select! {
            biased;
            written = written => written?,
            error = poll_fn(|cx| self.outbox.poll_close(cx)) => return Err(End::Close(error)),
            () = tokio::time::sleep(idle_timeout) => return Err(End::Gone),
        };
        self.protocol.on_done(Done::Write(answers), began, Instant::now);
        Ok(())
    }

    /// Removes the connection and tells the device the reason, concurrently: the cache may be slow, and a draining gateway does
    /// not wait for long.
    async fn finish(self, end: End) {
        let (backend, connection) = (self.backend.clone(), self.connection.clone());
        let removed = async {
            if let Some(connection) = &connection {
                backend.connections().close(connection).await;
            }
        };
        tokio::join!(removed, self.send_reason(end));
    }

    async fn send_reason(mut self, end: End) {
        let End::Close(error) = end else { return };
        metrics::closed(error.code);
        // A close frame has room for a code and 123 bytes. The whole sentence goes ahead in an error frame.
        let frame = ServerFrame { id: 0, frame: Some(Frame::Error(error.clone().into())) };
        let close = CloseFrame { code: error.code.close(), reason: error.close_reason().into() };
        let sent = async {
            self.socket.feed(self.format.encode(&frame)).await?;
            self.socket.send(Message::Close(Some(close))).await?;
            // Wait for the device's close frame: dropping the socket earlier may discard the frames before they are sent.
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(_))) | None => return Ok::<_, axum::Error>(()),
                    Some(Ok(_)) => {}
                    // Dropping a socket with unread bytes (a frame that is too large) resets the connection. Give the
                    // device time to receive the reason first.
                    Some(Err(_)) => tokio::time::sleep(CLOSE_TIMEOUT).await,
                }
            }
        };
        let _ = timeout(CLOSE_TIMEOUT, sent).await;
    }
}

/// Writes frames and flushes. Returns the answers to sends among them.
async fn write(
    socket: &mut WebSocket,
    format: Format,
    frames: VecDeque<Outgoing>,
) -> Result<Answers, axum::Error> {
    let (mut answers, mut deliveries) = (Answers::default(), Vec::new());
    for outgoing in frames {
        let message = match outgoing {
            Outgoing::Encoded(message) => message,
            Outgoing::Delivery { frame, sent_at_ms, writing } => {
                deliveries.push((sent_at_ms, writing));
                frame
            }
            Outgoing::Frame(frame) => format.encode(&frame),
            Outgoing::Sent { id, result: Ok(ack) } => {
                answers.ids.push(id);
                format.encode(&ServerFrame { id, frame: Some(Frame::Ack(ack)) })
            }
            Outgoing::Sent { id, result: Err(error) } => {
                metrics::refused(error.code);
                answers.ids.push(id);
                answers.refused.push((id, error.clone()));
                format.encode(&ServerFrame { id, frame: Some(Frame::Error(error.into())) })
            }
        };
        socket.feed(message).await?;
    }
    socket.flush().await?;
    record_deliveries(deliveries);
    Ok(answers)
}

/// Records the latency of written deliveries, given when their oldest entries were sent, and ends their spans.
fn record_deliveries(deliveries: Vec<(i64, Spans)>) {
    if deliveries.is_empty() {
        return;
    }
    let (latency, now) = (metrics::delivery(), now_ms());
    for (sent_at_ms, writing) in deliveries {
        // Clocks of gateways differ: the difference may be negative.
        latency.record((now - sent_at_ms).max(0) as f64 / 1_000.0);
        writing.finish();
    }
}

fn error_frame(id: u32, error: ApiError) -> Outgoing {
    metrics::refused(error.code);
    Outgoing::Frame(Box::new(ServerFrame { id, frame: Some(Frame::Error(error.into())) }))
}

#[cfg(test)]
mod tests;
