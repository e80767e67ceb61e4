//! A device that stays connected.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! use client::{Client, Event, Options, Server, State, http::Api, tokens::SessionTokens};
//!
//! let server = Server::parse("http://127.0.0.1:7450")?;
//! let api = Api::new(server.clone());
//! let tokens = api.login("alice", "correct horse", "laptop").await?;
//! let tokens = SessionTokens::new(api, tokens);
//! let (client, mut events) = Client::connect(server, tokens, Options::default(), State::default()).await?;
//! client.send("d:alice:bob", client::text("hello")).await?;
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
mod session;
mod worker;

pub use events::{Event, Events};

use crate::{Connection, Error, Server, State, backoff::Backoff, sync::Start, tokens::TokenSource};
use abi::v1::{Ack, GetHeads, GetHistory, HeadsPage, HistoryPage, MarkRead, Message, Send, message::Body};
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
    /// Unacknowledged messages, at least 1. Sending waits while the queue is full.
    pub queue: usize,
    /// Events queued for the application. While the queue is full, entries stay at the server.
    pub events: usize,
    /// Messages in flight per conversation. 1 keeps their order in all cases. With more, messages in flight may overtake
    /// a message that the server refuses temporarily.
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

/// A text message.
pub fn text(text: impl Into<String>) -> Message {
    Message { content_type: String::new(), body: Some(Body::Text(text.into())) }
}

/// A message for the worker, and the sender for its acknowledgement.
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

/// A queued message; a future of its acknowledgement. Dropping it does not cancel the message.
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

    /// Sends a message and waits until the server has stored it durably.
    ///
    /// Lost connections and retryable errors are retried; the retry is the same message.
    ///
    /// # Errors
    /// A permanent error of the server (`FORBIDDEN`, `TOO_LARGE`, ...), or the error that ended the client.
    pub async fn send(&self, conversation: &str, message: Message) -> Result<Ack, Error> {
        self.enqueue(conversation, message, None).await?.await
    }

    /// Queues a message; messages are sent in the order of calls. Waits while the queue is full.
    ///
    /// Pass the `client_msg_id` of a message whose sending began before a restart; `None` creates a new one.
    ///
    /// # Errors
    /// The error that ended the client.
    pub async fn enqueue(
        &self,
        conversation: &str,
        message: Message,
        client_msg_id: Option<String>,
    ) -> Result<Sending, Error> {
        let client_msg_id = client_msg_id.unwrap_or_else(new_client_msg_id);
        let send = Send { conversation: conversation.to_owned(), client_msg_id, message: Some(message) };
        let (answer, reply) = oneshot::channel();
        self.shared.sends.send((send, answer)).await.map_err(|_| self.end_reason())?;
        Ok(Sending { reply })
    }

    /// A page of heads: the latest state of the user's conversations.
    ///
    /// # Errors
    /// The error of the server, or the one that ended the client.
    pub async fn heads(&self, request: GetHeads) -> Result<HeadsPage, Error> {
        self.query(|answer| Query::Heads(request, answer)).await
    }

    /// A page of entries of a conversation.
    ///
    /// # Errors
    /// `FORBIDDEN` if the user is not a member, or the error that ended the client.
    pub async fn history(&self, request: GetHistory) -> Result<HistoryPage, Error> {
        self.query(|answer| Query::History(request, answer)).await
    }

    /// Marks a conversation as read up to an entry; returns the resulting read position.
    ///
    /// # Errors
    /// The error of the server, or the one that ended the client.
    pub async fn mark_read(&self, conversation: &str, conversation_seq: u64) -> Result<u64, Error> {
        let request = MarkRead { conversation: conversation.to_owned(), conversation_seq };
        self.query(|answer| Query::MarkRead(request, answer)).await
    }

    async fn query<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Query,
    ) -> Result<T, Error> {
        let (answer, reply) = oneshot::channel();
        self.shared.queries.send(query(answer)).await.map_err(|_| self.end_reason())?;
        reply.await.unwrap_or_else(|_| Err(self.end_reason()))
    }

    /// The progress of the application, to continue from after a restart.
    pub fn state(&self) -> State {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the connection and waits for that. Unacknowledged messages fail with [`Error::Stopped`].
    pub async fn close(self) {
        self.shared.stop.cancel();
        self.shared.tasks.wait().await;
    }

    fn end_reason(&self) -> Error {
        self.shared.ended.get().cloned().unwrap_or(Error::Stopped)
    }
}

/// Creates an id for a message: a UUIDv7.
pub fn new_client_msg_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests;
