//! A device that stays connected.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! use client::{Client, Draft, Event, Options, Server, State, http::Api, tokens::SessionTokens};
//!
//! let server = Server::parse("http://127.0.0.1:7450")?;
//! let api = Api::new(server.clone());
//! let tokens = api.login("alice", "correct horse", "laptop").await?;
//! let tokens = SessionTokens::new(api, tokens);
//! let (client, mut events) = Client::connect(server, tokens, Options::default(), State::default()).await?;
//! let ack = client.send("d:alice:bob", client::text("hello")).await?;
//! client.send("d:alice:bob", Draft::edit(&ack.message_id, client::text("hello!"))).await?;
//! while let Some(event) = events.next().await {
//!     if let Event::Entry(entry) = event {
//!         // Each entry once, in order per conversation. Save `client.state()` to continue after a restart.
//!         assert!(entry.conversation_seq > 0);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod events;
mod outbox;
mod query;
mod requests;
mod session;
mod worker;

pub use events::{Event, Events};

use crate::{Connection, Draft, Error, Server, State, backoff::Backoff, sync::Start, tokens::TokenSource};
use abi::v1::{Ack, Send};
use query::Query;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use worker::Worker;

/// Options of a client.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where a device without a state begins.
    pub start: Start,
    /// Longest pause between connection attempts, unless the server asks for a longer one.
    pub max_pause: Duration,
    /// Unacknowledged entries, at least 1. Sending waits while the queue is full.
    pub queue: usize,
    /// Events queued for the application. While the queue is full, changes stay at the server.
    pub events: usize,
    /// Entries in flight per conversation. 1 keeps their order in all cases. With more, entries in flight may overtake
    /// an entry that the server refuses temporarily.
    pub in_flight_per_conversation: usize,
    /// If a request is not answered within this time, the connection is dead.
    pub answer_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            start: Start::Beginning,
            max_pause: Duration::from_secs(15),
            queue: 1024,
            events: 1024,
            in_flight_per_conversation: 1,
            answer_timeout: Duration::from_secs(20),
        }
    }
}

/// An entry for the worker, and the sender for its acknowledgement.
type Outgoing = (Send, oneshot::Sender<Result<Ack, Error>>);

#[derive(Debug)]
struct Shared {
    sends: mpsc::Sender<Outgoing>,
    queries: mpsc::Sender<Query>,
    state: Arc<Mutex<State>>,
    ended: Arc<OnceLock<Error>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// A device that stays connected until its last clone is dropped. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

/// A queued entry; a future of its acknowledgement. Dropping it does not cancel the entry.
#[derive(Debug)]
pub struct Sending {
    reply: oneshot::Receiver<Result<Ack, Error>>,
}

impl Future for Sending {
    type Output = Result<Ack, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = ready!(Pin::new(&mut self.reply).poll(context));
        Poll::Ready(reply.unwrap_or(Err(Error::Stopped)))
    }
}

impl Client {
    /// Connects and waits for the server's welcome. From then on the client reconnects by itself.
    ///
    /// # Errors
    /// The error of the first connection. If the server asks to wait, up to three further attempts are made.
    pub async fn connect(
        server: Server,
        tokens: impl TokenSource,
        options: Options,
        state: State,
    ) -> Result<(Self, Events), Error> {
        let (mut worker, client, events) = Self::prepare(server, tokens, options, state);
        let mut backoff = Backoff::new(Duration::from_secs(5));
        let mut attempt = 0;
        let connection = loop {
            match worker.open().await {
                Ok(connection) => break connection,
                Err(error @ (Error::Server(_) | Error::Closed { .. })) if attempt < 3 => {
                    let Some(pause) = worker.pause_after(&error, &mut backoff) else { return Err(error) };
                    tokio::time::sleep(pause).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        };
        client.run(worker, Some(connection));
        Ok((client, events))
    }

    /// Starts a device that connects as soon as it can, for programs that may start without a network.
    pub fn start(server: Server, tokens: impl TokenSource, options: Options, state: State) -> (Self, Events) {
        let (worker, client, events) = Self::prepare(server, tokens, options, state);
        client.run(worker, None);
        (client, events)
    }

    fn prepare(
        server: Server,
        tokens: impl TokenSource,
        mut options: Options,
        state: State,
    ) -> (Worker, Self, Events) {
        options.queue = options.queue.max(1);
        let (sends, sends_out) = mpsc::channel(options.queue.min(1024));
        let (queries, queries_out) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let shared_state = Arc::new(Mutex::new(state.clone()));
        let (events_in, events) = events::channel(options.events, shared_state.clone());
        let worker = Worker::new(
            server,
            Box::new(tokens),
            options,
            state,
            sends_out,
            queries_out,
            events_in,
            stop.clone(),
        );
        let shared = Shared {
            sends,
            queries,
            state: shared_state,
            ended: worker.ended(),
            tasks: TaskTracker::new(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        };
        (worker, Self { shared: Arc::new(shared) }, events)
    }

    fn run(&self, worker: Worker, connection: Option<Connection>) {
        self.shared.tasks.spawn(worker.run(connection));
        self.shared.tasks.close();
    }

    /// Sends an entry and waits until the server has stored it durably. An edit, a recall or a reaction is then in force.
    ///
    /// Lost connections and retryable errors are retried; the retry is the same entry.
    ///
    /// # Errors
    /// A permanent error of the server (`FORBIDDEN`, `TOO_LARGE`, ...), or the error that ended the client.
    pub async fn send(&self, conversation: &str, draft: impl Into<Draft>) -> Result<Ack, Error> {
        self.enqueue(conversation, draft, None).await?.await
    }

    /// Queues an entry; entries are sent in the order of calls. Waits while the queue is full.
    ///
    /// Pass the `client_msg_id` of an entry whose sending began before a restart; `None` creates a new one.
    ///
    /// # Errors
    /// The error that ended the client.
    pub async fn enqueue(
        &self,
        conversation: &str,
        draft: impl Into<Draft>,
        client_msg_id: Option<String>,
    ) -> Result<Sending, Error> {
        let send = draft.into().into_send(conversation, client_msg_id.unwrap_or_else(new_client_msg_id));
        let (answer, reply) = oneshot::channel();
        self.shared.sends.send((send, answer)).await.map_err(|_| self.end_reason())?;
        Ok(Sending { reply })
    }

    /// The progress of the application, to continue from after a restart.
    pub fn state(&self) -> State {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the connection and waits for that. Unacknowledged entries fail with [`Error::Stopped`].
    pub async fn close(self) {
        self.shared.stop.cancel();
        self.shared.tasks.wait().await;
    }

    fn end_reason(&self) -> Error {
        self.shared.ended.get().cloned().unwrap_or(Error::Stopped)
    }
}

/// Creates an id for an entry: a UUIDv7.
pub fn new_client_msg_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests;
