//! The one task of a client: connects, lives through a session, and connects again.

use super::{
    Options, Outgoing, Query,
    events::{Event, EventSender},
    outbox::Outbox,
    session,
};
use crate::{
    Connection, Error, Server, State, backoff::Backoff, error::Recovery, sync::Sync, tokens::TokenSource,
};
use abi::{ApiError, error::ErrorCode, v1::Ack};
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// A connection that held for so long was a good one: the next pause is short again.
const GOOD: Duration = Duration::from_secs(5);
/// A server that did not answer a hello, because it was paused or the network kept it, may still find it for so long.
const LATE: Duration = Duration::from_secs(120);

/// What outlives a connection.
pub(super) struct Worker {
    pub(super) server: Server,
    tokens: Box<dyn TokenSource>,
    pub(super) options: Options,
    pub(super) sync: Sync,
    pub(super) outbox: Outbox<oneshot::Sender<Result<Ack, Error>>>,
    pub(super) sends: mpsc::Receiver<Outgoing>,
    pub(super) queries: mpsc::Receiver<Query>,
    /// Queries that are to be asked, again or for the first time.
    pub(super) waiting: VecDeque<Query>,
    pub(super) events: EventSender,
    pub(super) stop: CancellationToken,
    ended: Arc<OnceLock<Error>>,
    /// The token that was used last, and whether the server called it expired.
    token: Option<String>,
    expired: bool,
    /// When an attempt was given up last that the server may yet take for this device's newest connection.
    given_up: Option<Instant>,
}

impl Worker {
    #[expect(clippy::too_many_arguments, reason = "called once, with everything that the two halves share")]
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
            waiting: VecDeque::new(),
            events,
            stop,
            ended: Arc::default(),
            token: None,
            expired: false,
            given_up: None,
        }
    }

    /// Where the error will be that ended the client.
    pub(super) fn ended(&self) -> Arc<OnceLock<Error>> {
        self.ended.clone()
    }

    /// One attempt to connect.
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
            Err(Error::Timeout { .. } | Error::Lost(_)) => self.given_up = Some(Instant::now()),
            Err(_) => {}
        }
        opened
    }

    /// How long to wait after an error; `None`: it is the end.
    pub(super) fn pause_after(&mut self, error: &Error, backoff: &mut Backoff) -> Option<Duration> {
        match error.recovery() {
            // Perhaps by an attempt of its own. If it was another program with this device's name, that one comes back too,
            // and then there is nothing to give up.
            Recovery::Stop if error.code() == Some(ErrorCode::Replaced) => {
                let given_up = self.given_up.take().filter(|at| at.elapsed() < LATE);
                given_up.map(|_| backoff.pause(None))
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

    /// Runs until stopped or until an error that no further attempt can help.
    pub(super) async fn run(mut self, connection: Option<Connection>) {
        let error = self.live(connection).await;
        tracing::debug!(%error, "client ends");
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
            self.waiting.push_back(query);
        }
        for query in self.waiting.drain(..) {
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

    async fn live(&mut self, mut connection: Option<Connection>) -> Error {
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
                    if began.elapsed() >= GOOD {
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

impl Query {
    /// Tells who asked that there is no answer.
    pub(super) fn fail(self, error: Error) {
        match self {
            Self::Heads(_, reply) => drop(reply.send(Err(error))),
            Self::History(_, reply) => drop(reply.send(Err(error))),
            Self::MarkRead(_, reply) => drop(reply.send(Err(error))),
        }
    }
}
