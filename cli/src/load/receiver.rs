//! A connection that receives: the SDK's synchronisation without its queues.

use super::{
    ledger::{Seen, Stamp},
    run::Run,
    users::LoadUser,
};
use abi::v1::{GetHistory, Ping, ServerFrame, client_frame::Frame as Ask, server_frame::Frame};
use client::{
    Connection, Error, State, codec,
    connection::HELLO_ID,
    sync::{Change, Patience, Request, Start, Sync},
};
use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::time::{interval, sleep_until};
use tokio_util::sync::CancellationToken;

/// The capacity is never exhausted: received messages are counted and discarded.
const CAPACITY: usize = 1 << 20;
/// Pause before catching up again after an error.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Receiver {
    pub(super) run: Rc<Run>,
    pub(super) user: LoadUser,
    pub(super) conversation: String,
    pub(super) seen: Rc<RefCell<Seen>>,
    pub(super) stop: CancellationToken,
    sync: Sync,
    requests: HashMap<u32, Request>,
    next_id: u32,
    changes: Vec<Change>,
    patience: Patience,
    /// No request is sent before this.
    paused: Option<Instant>,
}

impl Receiver {
    pub(super) fn new(
        run: Rc<Run>,
        user: LoadUser,
        conversation: String,
        seen: Rc<RefCell<Seen>>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            run,
            user,
            conversation,
            seen,
            stop,
            sync: Sync::new(State::default(), Start::Beginning),
            requests: HashMap::new(),
            next_id: HELLO_ID,
            changes: Vec::new(),
            patience: Patience::default(),
            paused: None,
        }
    }

    /// Receives until stopped.
    ///
    /// # Errors
    /// The server is unreachable for too long, or refuses the user.
    pub(super) async fn run(mut self, connection: Connection) -> Result<(), Error> {
        let mut connection = Some(connection);
        let stop = self.stop.clone();
        loop {
            let mut open = match connection.take() {
                Some(open) => open,
                None => tokio::select! {
                    open = self.user.connect(&self.run.servers, self.sync.have()) => {
                        let open = open?;
                        self.run.count_reconnect();
                        open
                    }
                    () = stop.cancelled() => return Ok(()),
                },
            };
            if self.serve(&mut open).await.is_ok() {
                open.close().await;
                return Ok(());
            }
        }
    }

    async fn serve(&mut self, connection: &mut Connection) -> Result<(), Error> {
        self.sync.on_welcome(connection.welcome.receiver_seq);
        self.requests.clear();
        self.paused = None;
        self.patience = Patience::default();
        let stop = self.stop.clone();
        let heartbeat = Duration::from_millis(connection.welcome.heartbeat_ms.max(100).into());
        // More often than a device, to find missed messages before the run counts them as lost.
        let mut beat = interval(heartbeat.min(Duration::from_secs(5)));
        let mut last_received = Instant::now();
        loop {
            let awaited = self.patience.check(&mut self.sync, Instant::now());
            self.send_requests(connection).await?;
            tokio::select! {
                bytes = connection.next_bytes() => {
                    self.receive(connection.decode(bytes?)?);
                    while let Some(bytes) = connection.try_next_bytes() {
                        self.receive(connection.decode(bytes?)?);
                    }
                    last_received = Instant::now();
                }
                () = sleep_until(awaited.unwrap_or_else(Instant::now).into()), if awaited.is_some() => {}
                _ = beat.tick() => {
                    if last_received.elapsed() > heartbeat.mul_f64(2.5) {
                        return Err(Error::Timeout { what: "the heartbeat" });
                    }
                    self.next_id += 1;
                    connection.feed(codec::encode(self.next_id, Ask::Ping(Ping {}))).await?;
                    connection.flush().await?;
                }
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn send_requests(&mut self, connection: &mut Connection) -> Result<(), Error> {
        if self.paused.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        self.paused = None;
        let mut fed = false;
        while let Some(request) = self.sync.next_request(CAPACITY) {
            let frame = request.frame(abi::MAX_PAGE);
            self.next_id += 1;
            self.requests.insert(self.next_id, request);
            connection.feed(codec::encode(self.next_id, frame)).await?;
            fed = true;
        }
        self.sync.advance();
        if fed { connection.flush().await } else { Ok(()) }
    }

    /// Handles a frame; `None` for a part of an answer that is not complete.
    fn receive(&mut self, frame: Option<ServerFrame>) {
        let Some(frame) = frame else { return };
        let request = if frame.id == 0 { None } else { self.requests.remove(&frame.id) };
        let mut changes = std::mem::take(&mut self.changes);
        match (frame.frame, request) {
            (Some(Frame::Deliver(deliver)), _) => self.sync.on_deliver(deliver, CAPACITY, &mut changes),
            (Some(Frame::Pong(pong)), _) => self.sync.on_seq(pong.receiver_seq),
            (Some(Frame::Changes(page)), Some(_)) => self.sync.on_changes(page, CAPACITY, &mut changes),
            (Some(Frame::History(page)), Some(Request::History { conversation, .. })) => {
                self.sync.on_history(&conversation, page, &mut changes);
            }
            (Some(Frame::Error(error)), Some(request)) => {
                let error = abi::ApiError::from(error);
                self.sync.on_failed(&request, &error);
                self.paused = Some(Instant::now() + error.retry_after.unwrap_or(PAUSE));
            }
            _ => {}
        }
        if !changes.is_empty() {
            let mut seen = self.seen.borrow_mut();
            for change in changes.drain(..) {
                if let Change::Entry(entry) = change
                    && entry.conversation == self.conversation
                    && let Some(stamp) = Stamp::read(&entry)
                {
                    seen.record(stamp.counter);
                    self.run.received(stamp.due);
                }
            }
        }
        self.changes = changes;
    }
}

/// Reads a whole conversation back, and checks its order.
///
/// # Errors
/// The server is unreachable for too long, or refuses the user.
pub(super) async fn read_back(run: &Run, user: &LoadUser, conversation: &str) -> Result<Seen, Error> {
    let mut seen = Seen::default();
    let mut after = 0;
    let mut connection = None;
    loop {
        let mut open = match connection.take() {
            Some(open) => open,
            None => user.connect(&run.servers, None).await?,
        };
        match read_page(&mut open, conversation, after).await {
            Ok(page) => {
                for entry in &page.entries {
                    if let Some(stamp) = Stamp::read(entry) {
                        seen.record(stamp.counter);
                    }
                    // A missing or repeated conversation_seq counts as reordering, too.
                    if entry.conversation_seq != after + 1 {
                        seen.out_of_order += 1;
                    }
                    after = entry.conversation_seq;
                }
                if !page.more || page.entries.is_empty() {
                    open.close().await;
                    return Ok(seen);
                }
                connection = Some(open);
            }
            Err(Error::Server(error)) if error.code.is_retryable() => {
                tokio::time::sleep(error.retry_after.unwrap_or(PAUSE)).await;
                connection = Some(open);
            }
            Err(Error::Server(error)) => return Err(error.into()),
            Err(_) => {}
        }
    }
}

/// Reads a page of a conversation.
///
/// # Errors
/// The connection ends, or the server refuses the request.
pub(super) async fn read_page(
    connection: &mut Connection,
    conversation: &str,
    after: u64,
) -> Result<abi::v1::HistoryPage, Error> {
    let request = GetHistory {
        conversation: conversation.to_owned(),
        after,
        limit: abi::MAX_PAGE,
        ..GetHistory::default()
    };
    const ID: u32 = HELLO_ID + 1;
    connection.feed(codec::encode(ID, Ask::History(request))).await?;
    connection.flush().await?;
    loop {
        let answer = tokio::time::timeout(Duration::from_secs(30), connection.next());
        let frame = answer.await.map_err(|_| Error::Timeout { what: "a page of history" })??;
        match frame.frame {
            Some(Frame::History(page)) if frame.id == ID => return Ok(page),
            Some(Frame::Error(error)) if frame.id == ID => return Err(Error::Server(error.into())),
            _ => {}
        }
    }
}
