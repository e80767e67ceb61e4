//! The work of a connection: checks and requests, which call other services.

use super::{End, Socket};
use crate::{
    answers,
    hub::Connection,
    outbox::{Encoded, Outgoing, SendId},
    protocol::Step,
    send,
};
use abi::{
    ApiError,
    v1::{ServerFrame, Welcome, server_frame::Frame},
};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

/// Work in progress.
pub(super) type Work = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// The result of some work.
pub(super) enum Finished {
    /// Authenticated the device and registered the connection.
    Opened(u32, Box<Result<(Arc<Connection>, Welcome), ApiError>>),
    /// Checked a message, and queued it for the log.
    Sent(SendId, Result<(), ApiError>),
    /// Answered a request.
    Answered { id: u32, is_ping: bool },
    /// Renewed the route.
    Renewed,
    /// Checked the session.
    Rechecked(Result<(), ApiError>),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket<S> {
    /// Performs a step, and those that may follow it.
    pub(super) async fn perform(&mut self, step: Option<Step>) -> Result<(), End> {
        let mut next = step.or_else(|| self.protocol.next_step());
        while let Some(step) = next {
            if let Some(work) = self.work_of(step)?
                && let Some(finished) = self.begin(work).await
            {
                self.on_finished(finished)?;
            }
            next = self.protocol.next_step();
        }
        Ok(())
    }

    /// Begins some work. Most work finishes at once; the rest goes on next to reading and writing.
    async fn begin(&mut self, mut work: Work) -> Option<Finished> {
        let finished = poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(finished) => Poll::Ready(Some(finished)),
            Poll::Pending => Poll::Ready(None),
        });
        let finished = finished.await;
        if finished.is_none() {
            self.work.get_or_insert_default().push(work);
        }
        finished
    }

    fn work_of(&mut self, step: Step) -> Result<Option<Work>, End> {
        let backend = self.backend.clone();
        Ok(Some(match step {
            Step::Close(error) => return Err(End::Close(error)),
            Step::Refuse(id, error) => {
                answers::refuse(&*self.connection()?, id, error);
                return Ok(None);
            }
            Step::Authenticate(id, hello) => {
                let (format, outbox) = (self.format, self.outbox.clone());
                Box::pin(async move {
                    let opened = backend.connections().open(hello, format, outbox).await;
                    Finished::Opened(id, Box::new(opened))
                })
            }
            Step::Send(id, message) => {
                self.outbox.begin_send(self.known_refusals);
                let connection = self.connection()?;
                Box::pin(
                    async move { Finished::Sent(id, send::send(&backend, &connection, id, message).await) },
                )
            }
            Step::Answer(id, request) => {
                let connection = self.connection()?;
                Box::pin(async move {
                    let is_ping = request.is_ping();
                    answers::answer(&backend, &connection, id, request).await;
                    Finished::Answered { id, is_ping }
                })
            }
            Step::Renew => {
                let connection = self.connection()?;
                Box::pin(async move {
                    if let Err(error) = backend.connections().renew(&connection).await {
                        tracing::debug!(%error, "cannot renew a route");
                    }
                    Finished::Renewed
                })
            }
            Step::Recheck if self.is_rechecking => return Ok(None),
            Step::Recheck => {
                self.is_rechecking = true;
                let connection = self.connection()?;
                Box::pin(async move {
                    let identity = &connection.identity;
                    Finished::Rechecked(backend.authentication().recheck_session(identity).await)
                })
            }
        }))
    }

    fn connection(&self) -> Result<Arc<Connection>, End> {
        self.connection.clone().ok_or(End::Gone)
    }

    pub(super) fn on_finished(&mut self, finished: Finished) -> Result<(), End> {
        match finished {
            Finished::Opened(id, opened) => {
                let (connection, welcome) = opened.map_err(End::Close)?;
                self.protocol.welcomed(connection.identity.clone(), Instant::now());
                // The first deadline after the welcome may be earlier than the one of the hello.
                self.timer.as_mut().reset(self.protocol.deadline());
                let frame = ServerFrame { id, frame: Some(Frame::Welcome(welcome)), more_parts: false };
                let frame = Encoded::own(self.format.encode(&frame));
                self.outbox.push_first(Outgoing::Encoded(frame));
                self.connection = Some(connection);
            }
            Finished::Sent(id, Ok(())) => self.protocol.sent(id, None),
            Finished::Sent(id, Err(error)) => {
                self.protocol.sent(id, Some(&error));
                self.outbox.push(Outgoing::Sent { id, result: Err(error) });
            }
            Finished::Answered { id, is_ping } => self.protocol.answered(id, is_ping),
            Finished::Rechecked(checked) => {
                self.is_rechecking = false;
                checked.map_err(End::Close)?;
            }
            Finished::Renewed => {}
        }
        Ok(())
    }
}
