//! One session over a connection: sends requests and handles answers until the connection ends.

use super::{events::Event, query::Query, worker::Worker};
use crate::{
    Connection, Error,
    backoff::retry_pause,
    codec,
    connection::HELLO_ID,
    sync::{self, Request},
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{GetHeads, GetHistory, Ping, ServerFrame, client_frame::Frame as Ask, server_frame::Frame},
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

/// Queries in flight at a time.
const MAX_QUERIES: usize = 16;
/// Every server accepts frames of 4/3 of its largest body plus this size.
const FRAME_OVERHEAD: usize = 4 * 1024;
/// Frames handled per turn of the loop, so that a fast server does not starve the other events.
const MAX_FRAMES: usize = 256;
/// After this many internal errors of the server a message fails permanently.
const MAX_SERVER_ERRORS: u32 = 5;
/// Pause before catching up again after the server refused a request without naming a pause.
const SYNC_PAUSE: Duration = Duration::from_secs(2);
/// Longest interval between checks of heartbeat and deadlines.
const CHECK: Duration = Duration::from_secs(2);

/// The origin of a request in flight.
enum Pending {
    Send(u64),
    Query(Query),
    Sync(Request),
    Ping,
}

struct Session<'a> {
    worker: &'a mut Worker,
    connection: Connection,
    pending: HashMap<u32, (Instant, Pending)>,
    queries: usize,
    next_id: u32,
    heartbeat: Duration,
    last_received: Instant,
    last_ping: Instant,
    /// No request for catching up is sent before this.
    sync_paused: Option<Instant>,
    caught_up: bool,
}

/// Runs a session; returns the error that ended it.
pub(super) async fn run(worker: &mut Worker, connection: Connection) -> Error {
    let welcome = connection.welcome.clone();
    worker.sync.on_generation(welcome.generation, welcome.generation_before);
    worker.sync.on_welcome(welcome.receiver_seq);
    worker.outbox.reset();
    let heartbeat = Duration::from_millis(welcome.heartbeat_ms.max(100).into());
    worker.events.event(Event::Connected(welcome));
    let mut session = Session {
        worker,
        connection,
        pending: HashMap::new(),
        queries: 0,
        next_id: HELLO_ID,
        heartbeat,
        last_received: Instant::now(),
        last_ping: Instant::now(),
        sync_paused: None,
        caught_up: false,
    };
    let error = match session.serve().await {
        Ok(()) => Error::Stopped,
        Err(error) => error,
    };
    session.end().await;
    error
}

impl Session<'_> {
    async fn serve(&mut self) -> Result<(), Error> {
        let stop = self.worker.stop.clone();
        let mut check = interval(self.heartbeat.min(CHECK));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.report_progress();
            self.write_requests().await?;
            let wakes = [self.worker.outbox.next_resume(), self.sync_paused].into_iter().flatten().min();
            let worker = &mut *self.worker;
            // With enough capacity the sync waits for another event; this branch would then spin.
            let waits_for_capacity =
                worker.sync.waits_for_capacity() && worker.events.capacity() < sync::PAGE;
            tokio::select! {
                turn = self.connection.turn() => {
                    if let Some(bytes) = turn? {
                        self.receive(bytes)?;
                    }
                }
                Some((send, reply)) = worker.sends.recv(), if worker.outbox.len() < worker.options.queue => {
                    worker.outbox.push(send, reply);
                    while worker.outbox.len() < worker.options.queue
                        && let Ok((send, reply)) = worker.sends.try_recv()
                    {
                        worker.outbox.push(send, reply);
                    }
                }
                Some(query) = worker.queries.recv(), if worker.unsent_queries.is_empty() && self.queries < MAX_QUERIES => {
                    worker.unsent_queries.push_back(query);
                }
                () = worker.events.wait_for_capacity(), if waits_for_capacity => {}
                () = sleep_until(wakes.unwrap_or_else(Instant::now).into()), if wakes.is_some() => {
                    let now = Instant::now();
                    worker.outbox.resume(now);
                    self.sync_paused = self.sync_paused.filter(|until| *until > now);
                }
                _ = check.tick() => self.check().await?,
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Reports progress in catching up to the application.
    fn report_progress(&mut self) {
        let worker = &mut *self.worker;
        worker.events.update(&mut worker.sync, |_, _| {});
        if !self.caught_up && worker.sync.is_idle() {
            self.caught_up = true;
            worker.events.event(Event::CaughtUp);
        }
    }

    /// Writes all requests that may go out now, together. If the socket accepts no more bytes, the rest follows in a later
    /// turn. Waiting here could deadlock: the server may not read until its own writes are read.
    async fn write_requests(&mut self) -> Result<(), Error> {
        let mut fed = false;
        let max_in_flight = self.connection.welcome.max_in_flight as usize;
        while self.connection.is_ready()?
            && let Some((key, send)) = self.worker.outbox.next(max_in_flight)
        {
            let frame = Ask::Send(send.clone());
            self.feed(frame, Pending::Send(key)).await?;
            fed = true;
        }
        while self.sync_paused.is_none()
            && self.connection.is_ready()?
            && let Some(request) = self.worker.sync.next_request(self.worker.events.capacity())
        {
            let frame = match &request {
                Request::Heads { after } => {
                    Ask::Heads(GetHeads { after: after.clone(), limit: sync::HEADS_PAGE })
                }
                Request::History { conversation, after } => Ask::History(GetHistory {
                    conversation: conversation.clone(),
                    after: *after,
                    limit: sync::PAGE as i32,
                    ..GetHistory::default()
                }),
            };
            self.feed(frame, Pending::Sync(request)).await?;
            fed = true;
        }
        while self.queries < MAX_QUERIES
            && self.connection.is_ready()?
            && let Some(query) = self.worker.unsent_queries.pop_front()
        {
            self.queries += 1;
            self.feed(query.frame(), Pending::Query(query)).await?;
            fed = true;
        }
        if fed { self.connection.begin_flush() } else { Ok(()) }
    }

    async fn feed(&mut self, frame: Ask, pending: Pending) -> Result<(), Error> {
        self.next_id = self.next_id.checked_add(1).unwrap_or(HELLO_ID + 1);
        let id = self.next_id;
        // Register the request before writing it: if the write fails, it is sent again on the next connection.
        self.pending.insert(id, (Instant::now(), pending));
        let (bytes, max_body) = (codec::encode(id, frame), self.connection.welcome.max_body_bytes as usize);
        if bytes.len() > max_body / 3 * 4 + FRAME_OVERHEAD {
            // The server would close the connection, and all other requests would fail with it.
            let size = bytes.len();
            let message =
                format!("the request has {size} bytes; the server accepts bodies of up to {max_body} bytes");
            self.on_frame(ServerFrame {
                id,
                frame: Some(Frame::Error(ApiError::new(ErrorCode::TooLarge, message).into())),
                ..ServerFrame::default()
            });
            return Ok(());
        }
        self.connection.feed(bytes).await
    }

    async fn check(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if now.duration_since(self.last_received) > self.heartbeat.mul_f64(2.5) {
            return Err(Error::Timeout { what: "the heartbeat" });
        }
        let oldest = self.pending.values().map(|(at, _)| *at).min();
        if oldest.is_some_and(|at| now.duration_since(at) > self.worker.options.answer_timeout) {
            return Err(Error::Timeout { what: "a request" });
        }
        if now.duration_since(self.last_ping) + CHECK.min(self.heartbeat) / 2 >= self.heartbeat
            && self.connection.is_ready()?
        {
            self.last_ping = now;
            self.feed(Ask::Ping(Ping {}), Pending::Ping).await?;
            self.connection.begin_flush()?;
        }
        Ok(())
    }

    /// Handles a frame and those that have arrived with it.
    fn receive(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.last_received = Instant::now();
        self.on_bytes(bytes)?;
        for _ in 0..MAX_FRAMES {
            match self.connection.try_next_bytes() {
                Some(bytes) => self.on_bytes(bytes?)?,
                None => break,
            }
        }
        Ok(())
    }

    fn on_bytes(&mut self, bytes: Bytes) -> Result<(), Error> {
        if let Some(frame) = self.connection.decode(bytes)? {
            self.on_frame(frame);
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: ServerFrame) {
        let pending = self.pending.remove(&frame.id).map(|(_, pending)| pending);
        if matches!(pending, Some(Pending::Query(_))) {
            self.queries -= 1;
        }
        let Worker { outbox, events, sync, .. } = &mut *self.worker;
        match (frame.frame, pending) {
            (Some(Frame::Ack(ack)), Some(Pending::Send(key))) => {
                if let Some(item) = outbox.finish(key) {
                    let _ = item.reply.send(Ok(ack));
                }
            }
            (Some(Frame::Deliver(deliver)), _) => {
                let capacity = events.capacity();
                events.update(sync, |sync, slots| sync.on_deliver(deliver, capacity, slots));
            }
            (Some(Frame::Pong(pong)), _) => sync.on_seq(pong.receiver_seq),
            (Some(Frame::Heads(page)), Some(Pending::Sync(_))) => {
                events.update(sync, |sync, _| sync.on_heads(page));
            }
            (Some(Frame::History(page)), Some(Pending::Sync(Request::History { conversation, .. }))) => {
                events.update(sync, |sync, slots| sync.on_history(&conversation, page, slots));
            }
            (Some(frame), Some(Pending::Query(query))) => query.answer(frame),
            (Some(Frame::Error(error)), Some(pending)) => self.on_error(pending, error.into()),
            (Some(Frame::Error(error)), None) => {
                tracing::debug!(error = error.message, "error of the server without a request")
            }
            (_, Some(pending)) => {
                self.on_error(pending, ApiError::invalid("the answer does not fit the request"))
            }
            (answer, None) => {
                if !answer.is_some_and(|answer| events.signal(answer, sync)) {
                    tracing::debug!(id = frame.id, "answer without a request");
                }
            }
        }
    }

    /// A request failed: retry it later, or fail it permanently.
    fn on_error(&mut self, pending: Pending, error: ApiError) {
        let worker = &mut *self.worker;
        let now = Instant::now();
        match pending {
            Pending::Send(key) => {
                let attempts = worker.outbox.attempts(key);
                let is_temporary = matches!(
                    error.code,
                    ErrorCode::Unavailable | ErrorCode::RateLimited | ErrorCode::GoingAway
                );
                if is_temporary || (error.code.is_retryable() && attempts < MAX_SERVER_ERRORS) {
                    worker.outbox.retry(key, now, retry_pause(attempts, error.retry_after));
                } else if let Some(item) = worker.outbox.finish(key) {
                    let _ = item.reply.send(Err(error.into()));
                }
            }
            Pending::Query(query) => query.fail(error.into()),
            Pending::Sync(request) => {
                worker.sync.on_failed(&request, &error);
                if error.code.is_retryable() || matches!(request, Request::Heads { .. }) {
                    self.sync_paused = Some(now + retry_pause(0, error.retry_after.or(Some(SYNC_PAUSE))));
                }
            }
            Pending::Ping => {}
        }
    }

    /// Leaves unanswered queries to the next connection. Messages are still in the outbox; `Sync` repeats its requests.
    async fn end(self) {
        for (_, (_, pending)) in self.pending {
            if let Pending::Query(query) = pending {
                self.worker.unsent_queries.push_back(query);
            }
        }
        if self.worker.stop.is_cancelled() {
            self.connection.close().await;
        }
    }
}
