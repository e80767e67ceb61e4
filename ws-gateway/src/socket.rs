//! The thin shell around a session: one task, one WebSocket, one outbox.
//!
//! An idle connection is this task's memory and the socket's buffers, so the rare and large futures (calls to other
//! services) are boxed: they cost only while they run.

use crate::{
    backend::Backend,
    codec::Format,
    hub::Connection,
    metrics,
    outbox::{Drained, Outbox, Outgoing},
    send,
    session::{Request, Session, Step},
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{ServerFrame, server_frame::Frame},
};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, Sleep, timeout};
use tokio_tungstenite::tungstenite;
use utils::{clock::now_ms, trace::Spans};

/// A device that does not take a goodbye in this time does not get one.
const GOODBYE: Duration = Duration::from_secs(1);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + std::marker::Send + 'a>>;

/// Why the loop ended.
enum End {
    /// The device is gone, or the socket is broken.
    Gone,
    /// This side closes.
    Close(ApiError),
}

impl From<axum::Error> for End {
    fn from(error: axum::Error) -> Self {
        use tungstenite::{Error, error::ProtocolError};
        match error.into_inner().downcast::<Error>().map(|error| *error) {
            Ok(Error::Capacity(error)) => {
                let sentence = format!("the frame is larger than this server takes: {error}");
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
                tracing::debug!(%error, "socket ended");
                Self::Gone
            }
            Err(error) => {
                tracing::debug!(error, "socket ended");
                Self::Gone
            }
        }
    }
}

struct Shell {
    backend: Arc<Backend>,
    socket: WebSocket,
    session: Session,
    outbox: Arc<Outbox>,
    format: Format,
    connection: Option<Arc<Connection>>,
    /// What the device said before it was welcomed.
    early: Option<Message>,
    /// Set to a deadline of the session that may have moved on since: those only move on, so it is set again when it fires
    /// and not with every frame.
    timer: Pin<Box<Sleep>>,
}

/// Waits for the device to leave. A frame that it sends is for later, and tells that it is there.
async fn left(socket: &mut WebSocket, early: &mut Option<Message>) -> End {
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

/// Serves a socket to its end.
pub async fn serve(backend: Arc<Backend>, socket: WebSocket, format: Format) {
    let session = Session::new(backend.session.clone(), Instant::now());
    let outbox = Arc::new(Outbox::new(backend.max_outbox));
    let timer = Box::pin(tokio::time::sleep_until(session.deadline()));
    let mut shell = Shell { backend, socket, session, outbox, format, connection: None, early: None, timer };
    metrics::connections().increment(1);
    let end = shell.run().await;
    Box::pin(shell.finish(end)).await;
    metrics::connections().decrement(1);
}

impl Shell {
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
            message = self.socket.next(), if self.session.can_read() => match message {
                Some(Ok(message)) => self.on_message(message).await,
                Some(Err(error)) => Err(error.into()),
                None => Err(End::Gone),
            },
            () = &mut self.timer => {
                let due = self.session.on_time(Instant::now());
                self.timer.as_mut().reset(self.session.deadline());
                match due {
                    Some(step) => self.perform(step).await,
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
                self.session.on_sign_of_life(now);
                Ok(())
            }
            message => {
                let frame = self.format.decode(&message);
                drop(message);
                let step = self.session.on_frame(frame, now);
                self.perform(step).await
            }
        }
    }

    async fn perform(&mut self, step: Step) -> Result<(), End> {
        let begun = self.session.is_holding().then(Instant::now);
        let performed = self.perform_at_once(step).await;
        if let Some(begun) = begun {
            self.session.was_busy(begun.elapsed());
        }
        performed
    }

    async fn perform_at_once(&mut self, step: Step) -> Result<(), End> {
        match step {
            Step::Send(id, send) => {
                let connection = self.connection.clone().ok_or(End::Gone)?;
                let sent: Boxed<'_, _> = Box::pin(send::send(&self.backend, &connection, id, send));
                if let Err(fault) = sent.await {
                    self.session.refused(id, &fault);
                    connection.outbox.push(Outgoing::Sent { id, result: Err(fault) });
                }
                Ok(())
            }
            Step::Refuse(id, fault) => {
                self.outbox.push(error(id, fault));
                Ok(())
            }
            Step::Close(fault) => Err(End::Close(fault)),
            Step::Authenticate(id, hello) => Box::pin(self.authenticate(id, hello)).await,
            Step::Answer(id, request) => {
                let connection = self.connection.clone().ok_or(End::Gone)?;
                if request == Request::Ping {
                    self.session.renewed(Instant::now());
                }
                let answer = Box::pin(self.backend.answer(&connection, request)).await;
                self.outbox.push(match answer {
                    Ok(frame) => Outgoing::Frame(Box::new(ServerFrame { id, frame: Some(frame) })),
                    Err(fault) => error(id, fault),
                });
                Ok(())
            }
            Step::Renew => {
                let connection = self.connection.clone().ok_or(End::Gone)?;
                if let Err(fault) = Box::pin(self.backend.renew(&connection)).await {
                    tracing::debug!(%fault, "a route was not renewed");
                }
                Ok(())
            }
            Step::Recheck => {
                let connection = self.connection.clone().ok_or(End::Gone)?;
                match Box::pin(self.backend.recheck(&connection.identity)).await {
                    Err(fault) if fault.code == ErrorCode::Revoked => Err(End::Close(fault)),
                    _ => Ok(()),
                }
            }
        }
    }

    async fn authenticate(&mut self, id: u32, hello: abi::v1::Hello) -> Result<(), End> {
        let Self { backend, socket, early, .. } = self;
        let welcome = backend.welcome(hello, self.format, self.outbox.clone());
        let late = |_| ApiError::unavailable("this server is too slow; try again");
        // A device that gave up may be back already on another connection, which this one must not replace.
        let (connection, welcome) = tokio::select! {
            welcomed = timeout(backend.session.hello_timeout, welcome) => {
                welcomed.map_err(late).flatten().map_err(End::Close)?
            }
            end = left(socket, early) => return Err(end),
        };
        self.session.welcomed(connection.identity.clone(), Instant::now());
        self.connection = Some(connection);
        // Written past the outbox: deliveries may wait there already, and welcome comes first.
        let frame = ServerFrame { id, frame: Some(Frame::Welcome(welcome)) };
        self.socket.send(self.format.encode(&frame)).await.map_err(End::from)
    }

    /// Writes all that was waiting, with one flush. A device that does not take it is given up when its outbox overflows or
    /// somebody asks for the connection to be closed, or after the time that a silent device has.
    async fn write(&mut self, drained: Drained) -> Result<(), End> {
        let patience = self.backend.session.heartbeat * 5 / 2;
        let (socket, session, format) = (&mut self.socket, &mut self.session, self.format);
        let frames = drained.frames;
        let begun = session.is_holding().then(Instant::now);
        let written = async {
            let mut deliveries = Vec::new();
            for outgoing in frames {
                let message = match outgoing {
                    Outgoing::Encoded(message) => message,
                    Outgoing::Delivery { frame, sent_at_ms, writing } => {
                        deliveries.push((sent_at_ms, writing));
                        frame
                    }
                    Outgoing::Frame(frame) => format.encode(&frame),
                    Outgoing::Sent { id, result } => {
                        let frame = match result {
                            Ok(ack) => Frame::Ack(ack),
                            Err(fault) => {
                                metrics::refused(fault.code);
                                session.refused(id, &fault);
                                Frame::Error(fault.into())
                            }
                        };
                        session.answered(id);
                        format.encode(&ServerFrame { id, frame: Some(frame) })
                    }
                };
                socket.feed(message).await?;
            }
            socket.flush().await?;
            if let Some(begun) = begun {
                session.was_busy(begun.elapsed());
            }
            if session.is_holding() {
                session.written(Instant::now());
            }
            delivered(deliveries);
            Ok::<_, axum::Error>(())
        };
        if let Some(fault) = drained.close {
            let _ = timeout(GOODBYE, written).await;
            return Err(End::Close(fault));
        }
        tokio::select! {
            biased;
            written = written => written.map_err(End::from),
            fault = poll_fn(|cx| self.outbox.poll_overflow(cx)) => Err(End::Close(fault)),
            () = tokio::time::sleep(patience) => Err(End::Gone),
        }
    }

    /// Has the connection forgotten, and its device told why: at the same time, as the cache may be slow to answer or away, and
    /// a gateway that stops does not wait long.
    async fn finish(self, end: End) {
        let (backend, connection) = (self.backend.clone(), self.connection.clone());
        let forgotten = async {
            if let Some(connection) = &connection {
                backend.goodbye(connection).await;
            }
        };
        tokio::join!(forgotten, self.say_goodbye(end));
    }

    async fn say_goodbye(mut self, end: End) {
        let End::Close(fault) = end else { return };
        metrics::closed(fault.code);
        // A close has room for a code and 123 bytes. The sentence goes ahead in a frame of its own.
        let frame = ServerFrame { id: 0, frame: Some(Frame::Error(fault.clone().into())) };
        let close = CloseFrame { code: fault.code.close(), reason: fault.close_reason().into() };
        let goodbye = async {
            self.socket.feed(self.format.encode(&frame)).await?;
            self.socket.send(Message::Close(Some(close))).await?;
            // The device answers with a close of its own; a socket that is dropped before may take the goodbye along.
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(_))) | None => return Ok::<_, axum::Error>(()),
                    Some(Ok(_)) => {}
                    // What can't be read (a frame that is too large) is still there, and a socket that is dropped with
                    // unread bytes is reset: let the device have the goodbye first.
                    Some(Err(_)) => tokio::time::sleep(GOODBYE).await,
                }
            }
        };
        let _ = timeout(GOODBYE, goodbye).await;
    }
}

/// Frames with entries of these times were written.
fn delivered(deliveries: Vec<(i64, Spans)>) {
    if deliveries.is_empty() {
        return;
    }
    let (latency, now) = (metrics::delivery(), now_ms());
    for (sent_at_ms, writing) in deliveries {
        // The clocks of two gateways may differ.
        latency.record((now - sent_at_ms).max(0) as f64 / 1_000.0);
        writing.finish();
    }
}

fn error(id: u32, fault: ApiError) -> Outgoing {
    metrics::refused(fault.code);
    Outgoing::Frame(Box::new(ServerFrame { id, frame: Some(Frame::Error(fault.into())) }))
}

#[cfg(test)]
mod tests;
