//! The task of a client: connects, runs a session, and reconnects.

use super::{
    Options, Outgoing,
    events::{Event, EventSender},
    outbox::Outbox,
    query::Query,
    session,
};
use crate::{
    Connection, Error, Server, State, backoff::Backoff, error::Recovery, sync::Sync, tokens::TokenSource,
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{Ack, WatchPresence},
};
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// After a connection that lasted this long, the backoff is reset.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// A hello without an answer may reach a paused server, or cross a stalled network, this much later.
const LATE_HELLO: Duration = Duration::from_secs(120);

/// The parts of a client that outlive a connection.
pub(super) struct Worker {
    pub(super) server: Server,
    tokens: Box<dyn TokenSource>,
    pub(super) options: Options,
    pub(super) sync: Sync,
    pub(super) outbox: Outbox<oneshot::Sender<Result<Ack, Error>>>,
    pub(super) sends: mpsc::Receiver<Outgoing>,
    pub(super) queries: mpsc::Receiver<Query>,
    /// Queries to send, again or for the first time.
    pub(super) unsent_queries: VecDeque<Query>,
    /// The users whose presence the application watches.
    pub(super) watched: WatchPresence,
    pub(super) events: EventSender,
    pub(super) stop: CancellationToken,
    ended: Arc<OnceLock<Error>>,
    /// The last token.
    token: Option<String>,
    /// The server called the last token expired.
    expired: bool,
    /// When the last hello timed out. The server may still take it for this device's newest connection.
    abandoned_hello: Option<Instant>,
}

impl Worker {
    #[expect(clippy::too_many_arguments, reason = "called once, with all parts that the two halves share")]
    pub(super) fn new(
        server: Server,
        tokens: Box<dyn TokenSource>,
        options: Options,
        state: State,
        sends: mpsc::Receiver<Outgoing>,
        queries: mpsc::Receiver<Query>,
        events: EventSender,
        stop: CancellationToken,
    ) -> Self {
        Self {
            server,
            tokens,
            sync: Sync::new(state, options.start),
            outbox: Outbox::new(options.in_flight_per_conversation),
            options,
            sends,
            queries,
            unsent_queries: VecDeque::new(),
            watched: WatchPresence::default(),
            events,
            stop,
            ended: Arc::default(),
            token: None,
            expired: false,
            abandoned_hello: None,
        }
    }

    /// The error that has ended the client, once it is set.
    pub(super) fn ended(&self) -> Arc<OnceLock<Error>> {
        self.ended.clone()
    }

    /// Makes one connection attempt.
    pub(super) async fn open(&mut self) -> Result<Connection, Error> {
        let rejected = self.token.as_deref().filter(|_| self.expired);
        let token = match self.tokens.token(rejected).await {
            Ok(token) => token,
            Err(error) if error.recovery() == Recovery::Refresh => {
                return Err(ApiError::new(ErrorCode::Unauthenticated, error.to_string()).into());
            }
            Err(error) => return Err(error),
        };
        let opened = Connection::open(&self.server, &token, self.sync.have()).await;
        self.token = Some(token);
        match &opened {
            Ok(_) => self.expired = false,
            Err(Error::Timeout { .. } | Error::Lost(_)) => self.abandoned_hello = Some(Instant::now()),
            Err(_) => {}
        }
        opened
    }

    /// The pause before the next attempt after an error; `None` ends the client.
    pub(super) fn pause_after(&mut self, error: &Error, backoff: &mut Backoff) -> Option<Duration> {
        match error.recovery() {
            // The client's own abandoned hello may have replaced it, so it reconnects once. If another program uses this
            // device, that program reconnects too, and the client then ends without an abandoned hello to blame.
            Recovery::Stop if error.code() == Some(ErrorCode::Replaced) => {
                let abandoned = self.abandoned_hello.take().filter(|at| at.elapsed() < LATE_HELLO);
                abandoned.map(|_| backoff.pause(None))
            }
            Recovery::Stop => None,
            Recovery::Refresh if !self.expired => {
                self.expired = true;
                Some(Duration::ZERO)
            }
            Recovery::Refresh => Some(backoff.pause(None)),
            Recovery::Retry(told) => Some(backoff.pause(told)),
        }
    }

    /// Runs until it is stopped or until an error that a retry cannot fix.
    pub(super) async fn run(mut self, connection: Option<Connection>) {
        let error = self.run_sessions(connection).await;
        tracing::debug!(%error, "client ended");
        let _ = self.ended.set(error.clone());
        self.sends.close();
        self.queries.close();
        for item in self.outbox.drain() {
            let _ = item.reply.send(Err(error.clone()));
        }
        while let Some((_, reply)) = self.sends.recv().await {
            let _ = reply.send(Err(error.clone()));
        }
        while let Some(query) = self.queries.recv().await {
            self.unsent_queries.push_back(query);
        }
        for query in self.unsent_queries.drain(..) {
            query.fail(error.clone());
        }
        if !self.stop.is_cancelled() {
            let stop = self.stop.clone();
            tokio::select! {
                () = self.events.ended(error) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn run_sessions(&mut self, mut connection: Option<Connection>) -> Error {
        let mut backoff = Backoff::new(self.options.max_pause);
        let stop = self.stop.clone();
        loop {
            let opened = match connection.take() {
                Some(connection) => Ok(connection),
                None => tokio::select! {
                    opened = self.open() => opened,
                    () = stop.cancelled() => return Error::Stopped,
                },
            };
            let error = match opened {
                Ok(connection) => {
                    let began = Instant::now();
                    let error = session::run(self, connection).await;
                    if began.elapsed() >= STABLE_AFTER {
                        backoff.reset();
                    }
                    error
                }
                Err(error) => error,
            };
            if stop.is_cancelled() {
                return Error::Stopped;
            }
            let Some(retry_in) = self.pause_after(&error, &mut backoff) else { return error };
            tracing::debug!(%error, ?retry_in, "disconnected");
            self.events.event(Event::Disconnected { error, retry_in });
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                () = stop.cancelled() => return Error::Stopped,
            }
        }
    }
}
