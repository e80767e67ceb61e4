//! One connection's life: requests out, answers in, until it ends.

use super::{Query, events::Event, worker::Worker};
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

/// Queries that may be unanswered at a time.
const MAX_QUERIES: usize = 16;
/// Every server takes frames of this size and four thirds of its largest body.
const MAX_AROUND_BODY: usize = 4 * 1024;
/// Frames that are handled before the loop looks at anything else.
const MAX_FRAMES: usize = 256;
/// Refusals of the kind "fault of the server" before a message is given up.
const MAX_FAULTS: u32 = 5;
/// How long a device waits with catching up after the server could not help.
const SYNC_PAUSE: Duration = Duration::from_secs(2);
/// How often a session looks after itself.
const CHECK: Duration = Duration::from_secs(2);

/// Who waits for an answer.
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
    heard: Instant,
    pinged: Instant,
    /// Catching up waits until then.
    sync_paused: Option<Instant>,
    caught_up: bool,
}

/// Lives through a connection; gives what ended it.
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
        heard: Instant::now(),
        pinged: Instant::now(),
        sync_paused: None,
        caught_up: false,
    };
    let error = match session.live().await {
        Ok(()) => Error::Stopped,
        Err(error) => error,
    };
    session.end().await;
    error
}

impl Session<'_> {
    async fn live(&mut self) -> Result<(), Error> {
        let stop = self.worker.stop.clone();
        let mut check = interval(self.heartbeat.min(CHECK));
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.look();
            self.ask().await?;
            let wakes = [self.worker.outbox.wakes_at(), self.sync_paused].into_iter().flatten().min();
            let worker = &mut *self.worker;
            // With room it waits for something else, and would find the room again and again.
            let waits_for_room = worker.sync.waits_for_room() && worker.events.room() < sync::PAGE;
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
                Some(query) = worker.queries.recv(), if worker.waiting.is_empty() && self.queries < MAX_QUERIES => {
                    worker.waiting.push_back(query);
                }
                () = worker.events.wait_for_room(), if waits_for_room => {}
                () = sleep_until(wakes.unwrap_or_else(Instant::now).into()), if wakes.is_some() => {
                    let now = Instant::now();
                    worker.outbox.wake(now);
                    self.sync_paused = self.sync_paused.filter(|until| *until > now);
                }
                _ = check.tick() => self.check().await?,
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Tells the application what has changed in what it has.
    fn look(&mut self) {
        let worker = &mut *self.worker;
        worker.events.follow(&mut worker.sync, |_, _| {});
        if !self.caught_up && worker.sync.is_idle() {
            self.caught_up = true;
            worker.events.event(Event::CaughtUp);
        }
    }

    /// Writes everything that may go out now, in one go. What the server does not take now goes with a later turn: it is not
    /// waited for, as the server may be waiting for what it wrote to be read.
    async fn ask(&mut self) -> Result<(), Error> {
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
            && let Some(request) = self.worker.sync.next_request(self.worker.events.room())
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
            && let Some(query) = self.worker.waiting.pop_front()
        {
            let frame = match &query {
                Query::Heads(request, _) => Ask::Heads(request.clone()),
                Query::History(request, _) => Ask::History(request.clone()),
                Query::MarkRead(request, _) => Ask::Read(request.clone()),
            };
            self.queries += 1;
            self.feed(frame, Pending::Query(query)).await?;
            fed = true;
        }
        if fed { self.connection.begin_flush() } else { Ok(()) }
    }

    async fn feed(&mut self, frame: Ask, pending: Pending) -> Result<(), Error> {
        self.next_id = self.next_id.checked_add(1).unwrap_or(HELLO_ID + 1);
        let id = self.next_id;
        // First noted, then written: what fails to be written is asked again on the next connection.
        self.pending.insert(id, (Instant::now(), pending));
        let (bytes, max_body) = (codec::encode(id, frame), self.connection.welcome.max_body_bytes as usize);
        if bytes.len() > max_body / 3 * 4 + MAX_AROUND_BODY {
            // Over a frame that is too large the server closes the connection, and with it everything else would end.
            let size = bytes.len();
            let sentence =
                format!("the request has {size} bytes; the server takes bodies of up to {max_body}");
            self.frame(ServerFrame {
                id,
                frame: Some(Frame::Error(ApiError::new(ErrorCode::TooLarge, sentence).into())),
            });
            return Ok(());
        }
        self.connection.feed(bytes).await
    }

    async fn check(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if now.duration_since(self.heard) > self.heartbeat.mul_f64(2.5) {
            return Err(Error::Timeout { what: "the heartbeat" });
        }
        let oldest = self.pending.values().map(|(at, _)| *at).min();
        if oldest.is_some_and(|at| now.duration_since(at) > self.worker.options.answer_timeout) {
            return Err(Error::Timeout { what: "a request" });
        }
        if now.duration_since(self.pinged) + CHECK.min(self.heartbeat) / 2 >= self.heartbeat
            && self.connection.is_ready()?
        {
            self.pinged = now;
            self.feed(Ask::Ping(Ping {}), Pending::Ping).await?;
            self.connection.begin_flush()?;
        }
        Ok(())
    }

    /// Handles a frame and those that are there with it.
    fn receive(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.heard = Instant::now();
        self.frame(codec::decode(bytes)?);
        for _ in 0..MAX_FRAMES {
            match self.connection.try_next_bytes() {
                Some(bytes) => self.frame(codec::decode(bytes?)?),
                None => break,
            }
        }
        Ok(())
    }

    fn frame(&mut self, frame: ServerFrame) {
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
                let room = events.room();
                events.follow(sync, |sync, places| sync.on_deliver(deliver, room, places));
            }
            (Some(Frame::Pong(pong)), _) => sync.on_seq(pong.receiver_seq),
            (Some(Frame::Receipt(receipt)), _) => events.receipt(receipt, sync),
            (Some(Frame::Heads(page)), Some(Pending::Sync(_))) => {
                events.follow(sync, |sync, _| sync.on_heads(page));
            }
            (Some(Frame::History(page)), Some(Pending::Sync(Request::History { conversation, .. }))) => {
                events.follow(sync, |sync, places| sync.on_history(&conversation, page, places));
            }
            (Some(Frame::Heads(page)), Some(Pending::Query(Query::Heads(_, reply)))) => {
                let _ = reply.send(Ok(page));
            }
            (Some(Frame::History(page)), Some(Pending::Query(Query::History(_, reply)))) => {
                let _ = reply.send(Ok(page));
            }
            (Some(Frame::Read(read)), Some(Pending::Query(Query::MarkRead(_, reply)))) => {
                let _ = reply.send(Ok(read.read_seq));
            }
            (Some(Frame::Error(error)), Some(pending)) => self.refused(pending, error.into()),
            (Some(Frame::Error(error)), None) => {
                tracing::debug!(error = error.message, "the server complains")
            }
            (_, Some(pending)) => self.refused(pending, ApiError::invalid("an answer of another kind")),
            (_, None) => tracing::debug!(id = frame.id, "an answer that nobody waits for"),
        }
    }

    /// A request failed: again later, or for good.
    fn refused(&mut self, pending: Pending, fault: ApiError) {
        let worker = &mut *self.worker;
        let now = Instant::now();
        match pending {
            Pending::Send(key) => {
                let attempts = worker.outbox.attempts(key);
                let passes = matches!(
                    fault.code,
                    ErrorCode::Unavailable | ErrorCode::RateLimited | ErrorCode::GoingAway
                );
                if passes || (fault.code.is_retryable() && attempts < MAX_FAULTS) {
                    worker.outbox.retry(key, now, retry_pause(attempts, fault.retry_after));
                } else if let Some(item) = worker.outbox.finish(key) {
                    let _ = item.reply.send(Err(fault.into()));
                }
            }
            Pending::Query(query) => query.fail(fault.into()),
            Pending::Sync(request) => {
                worker.sync.on_failed(&request, &fault);
                if fault.code.is_retryable() || matches!(request, Request::Heads { .. }) {
                    self.sync_paused = Some(now + retry_pause(0, fault.retry_after.or(Some(SYNC_PAUSE))));
                }
            }
            Pending::Ping => {}
        }
    }

    /// Leaves what was not answered for the next connection. Messages are in the outbox; reading again does no harm.
    async fn end(self) {
        for (_, (_, pending)) in self.pending {
            if let Pending::Query(query) = pending {
                self.worker.waiting.push_back(query);
            }
        }
        if self.worker.stop.is_cancelled() {
            self.connection.close().await;
        }
    }
}
