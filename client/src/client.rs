//! The SDK: a device that stays connected.
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
//!         // Each entry once, in order per conversation. Keep `client.state()` to go on after a restart.
//!         assert!(entry.conversation_seq > 0);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod events;
mod outbox;
mod session;
mod worker;

pub use events::{Event, Events};

use crate::{Connection, Error, Server, State, backoff::Backoff, sync::Start, tokens::TokenSource};
use abi::v1::{Ack, GetHeads, GetHistory, HeadsPage, HistoryPage, MarkRead, Message, Send, message::Body};
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

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where a device begins that has no state.
    pub start: Start,
    /// Longest pause between attempts to connect.
    pub max_pause: Duration,
    /// Messages that may wait for their acknowledgement, at least one; sending waits beyond that.
    pub queue: usize,
    /// Events that may wait for the application. Entries beyond that stay at the server until there is room.
    pub events: usize,
    /// Messages of one conversation that may be on the wire. 1 keeps their order whatever the server answers; with more,
    /// a message that the server refuses for a moment may be overtaken by those already on their way.
    pub in_flight_per_conversation: usize,
    /// A request that was not answered by then means that the connection is dead.
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

/// Something asked other than to send.
#[derive(Debug)]
enum Query {
    Heads(GetHeads, oneshot::Sender<Result<HeadsPage, Error>>),
    History(GetHistory, oneshot::Sender<Result<HistoryPage, Error>>),
    MarkRead(MarkRead, oneshot::Sender<Result<u64, Error>>),
}

/// A message for the worker, and who waits for its acknowledgement.
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

/// A device that stays connected until the last clone of it is dropped. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

/// A message that was taken for sending; gives its acknowledgement. Dropping it does not take the message back.
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
    /// Connects and waits until the server has welcomed the device; reconnects by itself from then on.
    ///
    /// # Errors
    /// What kept the first connection from being made. A server that asks to wait is waited for, three times.
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

    /// Starts a device that connects when it can: for programs that begin without a network.
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
        let kept = Arc::new(Mutex::new(state.clone()));
        let (events_in, events) = events::channel(options.events, kept.clone());
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
            state: kept,
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

    /// Sends a message and waits until the server has it durably.
    ///
    /// Waits through lost connections and through "try again"; the retry is the same message.
    ///
    /// # Errors
    /// What the server will not take (`FORBIDDEN`, `TOO_LARGE`, ...), or what ended the client.
    pub async fn send(&self, conversation: &str, message: Message) -> Result<Ack, Error> {
        self.enqueue(conversation, message, None).await?.await
    }

    /// Takes a message for sending; the order of calls is the order of messages. Waits while the queue is full.
    ///
    /// `client_msg_id` is for messages that were begun before a restart; `None` makes a new one.
    ///
    /// # Errors
    /// What ended the client.
    pub async fn enqueue(
        &self,
        conversation: &str,
        message: Message,
        client_msg_id: Option<String>,
    ) -> Result<Sending, Error> {
        let client_msg_id = client_msg_id.unwrap_or_else(new_client_msg_id);
        let send = Send { conversation: conversation.to_owned(), client_msg_id, message: Some(message) };
        let (answer, reply) = oneshot::channel();
        self.shared.sends.send((send, answer)).await.map_err(|_| self.reason())?;
        Ok(Sending { reply })
    }

    /// A page of heads: where the user's conversations stand.
    ///
    /// # Errors
    /// What the server says, or what ended the client.
    pub async fn heads(&self, request: GetHeads) -> Result<HeadsPage, Error> {
        self.query(|answer| Query::Heads(request, answer)).await
    }

    /// A page of entries of a conversation.
    ///
    /// # Errors
    /// `FORBIDDEN` for who is not in it, or what ended the client.
    pub async fn history(&self, request: GetHistory) -> Result<HistoryPage, Error> {
        self.query(|answer| Query::History(request, answer)).await
    }

    /// Marks a conversation as read up to an entry; gives up to where it is read now.
    ///
    /// # Errors
    /// What the server says, or what ended the client.
    pub async fn mark_read(&self, conversation: &str, conversation_seq: u64) -> Result<u64, Error> {
        let request = MarkRead { conversation: conversation.to_owned(), conversation_seq };
        self.query(|answer| Query::MarkRead(request, answer)).await
    }

    async fn query<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Query,
    ) -> Result<T, Error> {
        let (answer, reply) = oneshot::channel();
        self.shared.queries.send(query(answer)).await.map_err(|_| self.reason())?;
        reply.await.unwrap_or_else(|_| Err(self.reason()))
    }

    /// What the application has seen, to go on from after a restart.
    pub fn state(&self) -> State {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the connection and waits for it. Messages without an acknowledgement end with [`Error::Stopped`].
    pub async fn close(self) {
        self.shared.stop.cancel();
        self.shared.tasks.wait().await;
    }

    fn reason(&self) -> Error {
        self.shared.ended.get().cloned().unwrap_or(Error::Stopped)
    }
}

/// A new id for a message: a UUIDv7.
pub fn new_client_msg_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests;
