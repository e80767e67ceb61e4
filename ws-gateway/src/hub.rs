//! The connections of this gateway, by user: who gets a delivery, and which connection a new one replaces.

use crate::{
    codec::Format,
    metrics,
    outbox::{Outbox, Outgoing},
};
use abi::{
    ApiError,
    error::ErrorCode,
    splice::EncodedEntry,
    v1::{PushRequest, Receipt, Receiver, ReceiverSeq, ServerFrame, server_frame::Frame},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use utils::trace::{Kind, Spans};

/// Who is at the other end of a connection, as its token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// Session id: the device's log-in.
    pub session: String,
}

/// A connection whose device said hello.
#[derive(Debug)]
pub struct Connection {
    /// Unique among all gateways and their restarts.
    pub id: String,
    /// Who it is.
    pub identity: Identity,
    /// When its device said hello, milliseconds since 1970-01-01 UTC.
    pub opened_at_ms: i64,
    /// How it talks.
    pub format: Format,
    /// What waits to be written.
    pub outbox: Arc<Outbox>,
}

/// All connections, by user. Locked for moments only, never across an await.
#[derive(Debug)]
pub struct Hub {
    users: Mutex<HashMap<String, Vec<Arc<Connection>>>>,
    max_per_user: usize,
    /// Most bytes of entries in one frame. A device may be fast and yet have several deliveries waiting, and none of its frames
    /// may come near to what closes it: beyond this it gets the news without the entries, and reads them at its own pace.
    max_delivery: usize,
}

/// When so many bytes were queued by one delivery, those who write them have a turn before it goes on.
const AT_ONCE: usize = 1 << 20;

impl Hub {
    /// An empty hub that allows each user so many connections, and each frame so many bytes of entries.
    pub fn new(max_per_user: usize, max_delivery: usize) -> Self {
        Self { users: Mutex::default(), max_per_user, max_delivery }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Connection>>>> {
        // Nothing in here panics half-way, so what a poisoned lock guards is whole.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. An older one of the same device is closed: a device that reconnects before its old socket is
    /// found dead must not be taken for two.
    ///
    /// # Errors
    /// `RATE_LIMITED` if the user has too many connections.
    pub fn add(&self, connection: Arc<Connection>) -> Result<(), ApiError> {
        let mut users = self.users();
        let connections = users.entry(connection.identity.user.clone()).or_default();
        connections.retain(|other| {
            let replaced = other.identity.device == connection.identity.device;
            if replaced {
                other.outbox.close(replaced_fault());
            }
            !replaced
        });
        if connections.len() >= self.max_per_user {
            return Err(ApiError::new(
                ErrorCode::RateLimited,
                format!("the user has {} connections, and more are not allowed", self.max_per_user),
            ));
        }
        connections.push(connection);
        Ok(())
    }

    /// The place of a connection that was added, which is given up again unless it is kept.
    pub fn place<'a>(&'a self, connection: &'a Connection) -> Place<'a> {
        Place { hub: self, connection: Some(connection) }
    }

    /// Removes one connection, and no other of the same user or device.
    pub fn remove(&self, connection: &Connection) {
        let mut users = self.users();
        if let Some(connections) = users.get_mut(&connection.identity.user) {
            connections.retain(|other| other.id != connection.id);
            if connections.is_empty() {
                users.remove(&connection.identity.user);
            }
            // A map keeps the room of its best day; after a wave of reconnects elsewhere it is given back.
            if users.capacity() > 1_024 && users.len() < users.capacity() / 8 {
                users.shrink_to_fit();
            }
        }
    }

    /// Closes the connections of a session that were opened before a time, and says how many there were.
    pub fn disconnect(&self, user: &str, session: &str, opened_before_ms: i64, fault: &ApiError) -> u32 {
        let users = self.users();
        let connections = users.get(user).map(Vec::as_slice).unwrap_or_default();
        let ended = connections.iter().filter(|connection| {
            connection.identity.session == session && connection.opened_at_ms < opened_before_ms
        });
        ended.map(|connection| connection.outbox.close(fault.clone())).count().try_into().unwrap_or(u32::MAX)
    }

    /// Every connection, for the drain.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.users().values().flatten().cloned().collect()
    }

    /// Queues a delivery for the devices that are here, and says for how many. Below `spans` are those of the writes to sockets.
    /// Whom it has not come to when it is dropped learns with the next heartbeat.
    pub async fn deliver(&self, push: PushRequest, spans: &Spans) -> u32 {
        let entries: Vec<_> = push.entries.into_iter().map(EncodedEntry::new).collect();
        let (mut queued, mut bytes) = (0, 0);
        let mut wanted = Vec::new();
        for receiver in &push.receivers {
            wanted.clear();
            wanted.extend(receiver.entries.iter().filter_map(|index| entries.get(*index as usize)));
            let (connections, size) = self.deliver_to(receiver, &wanted, spans);
            queued += connections;
            bytes += size;
            if bytes >= AT_ONCE {
                bytes = 0;
                tokio::task::yield_now().await;
            }
        }
        push.receipts.into_iter().for_each(|receipt| queued += self.deliver_receipt(receipt));
        metrics::delivered(queued);
        queued
    }

    /// Says for how many connections, and how many bytes those were.
    fn deliver_to(&self, receiver: &Receiver, entries: &[&EncodedEntry], spans: &Spans) -> (u32, usize) {
        let seq = receiver.receiver_seq.unwrap_or(ReceiverSeq { epoch: 0, seq: 0 });
        // A push is in the order of the log, so the first is the oldest.
        let sent_at_ms = entries.first().map(|entry| entry.entry().sent_at_ms);
        let mut frames = PerFormat::default();
        let (mut queued, mut bytes) = (0, 0);
        for connection in self.connections(&receiver.user) {
            let (frame, is_whole) = frames.get(connection.format, |format| {
                let is_whole = format.size(entries) <= self.max_delivery;
                (format.deliver(seq, receiver.raised, if is_whole { entries } else { &[] }), is_whole)
            });
            let outgoing = match sent_at_ms.filter(|_| is_whole) {
                Some(sent_at_ms) => {
                    let messages = entries.iter().map(|entry| &*entry.entry().message_id);
                    let mut writing = spans.children_among("write", Kind::Internal, messages);
                    writing.set("godwit.connection", || connection.id.clone());
                    Outgoing::Delivery { frame, sent_at_ms, writing }
                }
                None => Outgoing::Encoded(frame),
            };
            queued += 1;
            bytes += outgoing.size();
            connection.outbox.push(outgoing);
        }
        (queued, bytes)
    }

    fn deliver_receipt(&self, receipt: Receipt) -> u32 {
        let Some(read) = receipt.receipt else { return 0 };
        let frame = ServerFrame { id: 0, frame: Some(Frame::Receipt(read)) };
        let mut frames = PerFormat::default();
        let mut queued = 0;
        for user in &receipt.users {
            for connection in self.connections(user) {
                let frame = frames.get(connection.format, |format| format.encode(&frame));
                connection.outbox.push(Outgoing::Encoded(frame));
                queued += 1;
            }
        }
        queued
    }

    fn connections(&self, user: &str) -> Vec<Arc<Connection>> {
        self.users().get(user).cloned().unwrap_or_default()
    }
}

/// The reason to close a connection whose device has a newer one.
pub fn replaced_fault() -> ApiError {
    ApiError::new(ErrorCode::Replaced, "the same device connected again")
}

/// What is made once per wire format, when it is first needed.
struct PerFormat<T> {
    proto: Option<T>,
    json: Option<T>,
}

impl<T> Default for PerFormat<T> {
    fn default() -> Self {
        Self { proto: None, json: None }
    }
}

impl<T: Clone> PerFormat<T> {
    fn get(&mut self, format: Format, make: impl FnOnce(Format) -> T) -> T {
        let made = match format {
            Format::Proto => &mut self.proto,
            Format::Json => &mut self.json,
        };
        made.get_or_insert_with(|| make(format)).clone()
    }
}

/// A connection in the hub that may not come to be: its device can leave before it is welcomed.
pub struct Place<'a> {
    hub: &'a Hub,
    connection: Option<&'a Connection>,
}

impl Place<'_> {
    /// The connection stays.
    pub fn keep(mut self) {
        self.connection = None;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection {
            self.hub.remove(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{Deliver, Entry, Message as Content, entry, message::Body};
    use axum::extract::ws::Message;
    use prost::Message as _;
    use std::future::poll_fn;

    fn connection(user: &str, device: &str, id: &str) -> Arc<Connection> {
        connection_as(Format::Proto, user, device, id)
    }

    fn connection_as(format: Format, user: &str, device: &str, id: &str) -> Arc<Connection> {
        Arc::new(Connection {
            id: id.into(),
            identity: Identity { user: user.into(), device: device.into(), session: format!("s-{device}") },
            opened_at_ms: 1_000,
            format,
            outbox: Arc::new(Outbox::new(10_000)),
        })
    }

    fn push(user: &str, entries: Vec<u32>) -> PushRequest {
        PushRequest {
            app: "default".into(),
            entries: vec![Entry::default(), Entry::default()],
            receivers: vec![Receiver {
                user: user.into(),
                receiver_seq: Some(ReceiverSeq { epoch: 1, seq: 1 }),
                raised: 1,
                entries,
            }],
            receipts: Vec::new(),
        }
    }

    fn text(text: &str) -> Entry {
        let message = Content { body: Some(Body::Text(text.into())), ..Content::default() };
        Entry { content: Some(entry::Content::Message(message)), ..Entry::default() }
    }

    async fn delivered(connection: &Connection) -> Vec<Deliver> {
        let drained = poll_fn(|cx| connection.outbox.poll_drain(cx)).await;
        assert_eq!(drained.close, None);
        let deliver = |outgoing| {
            let frame = match outgoing {
                Outgoing::Delivery { frame, .. } | Outgoing::Encoded(frame) => frame,
                other => panic!("no delivery: {other:?}"),
            };
            let frame: ServerFrame = match frame {
                Message::Text(text) => serde_json::from_str(&text).unwrap(),
                binary => ServerFrame::decode(binary.into_data()).unwrap(),
            };
            match frame.frame {
                Some(Frame::Deliver(deliver)) => deliver,
                other => panic!("no delivery: {other:?}"),
            }
        };
        drained.frames.into_iter().map(deliver).collect()
    }

    #[tokio::test]
    async fn p7_more_than_a_device_should_have_waiting_comes_as_news_without_entries() {
        let hub = Hub::new(4, 1_000);
        let phone = connection("alice", "phone", "1");
        let laptop = connection_as(Format::Json, "alice", "laptop", "2");
        hub.add(phone.clone()).unwrap();
        hub.add(laptop.clone()).unwrap();
        // What takes more room in JSON, what is large in both, and something small.
        for texts in [
            ["\u{1}".repeat(250), String::new()],
            ["x".repeat(600), "y".repeat(600)],
            [const { String::new() }; 2],
        ] {
            let mut push = push("alice", vec![0, 1]);
            push.entries = texts.iter().map(|body| text(body)).collect();
            push.receivers[0].raised = 2;
            assert_eq!(hub.deliver(push, &Spans::default()).await, 2);
        }
        for (device, entries) in [(phone, [2, 0, 2]), (laptop, [0, 0, 2])] {
            let deliveries = delivered(&device).await;
            assert_eq!(deliveries.iter().map(|deliver| deliver.entries.len()).collect::<Vec<_>>(), entries);
            assert!(deliveries.iter().all(|deliver| deliver.raised == 2 && deliver.receiver_seq.is_some()));
        }
    }

    #[tokio::test]
    async fn p7_a_delivery_to_many_does_not_wait_in_memory_as_a_whole() {
        let hub = Hub::new(4, usize::MAX);
        let mut push = push("0", vec![0]);
        push.entries = vec![text(&"x".repeat(AT_ONCE / 4))];
        let mut devices = tokio::task::JoinSet::new();
        for number in 0..8 {
            let user = number.to_string();
            let outbox = Arc::new(Outbox::new(AT_ONCE));
            let device = Connection { outbox, ..Arc::into_inner(connection(&user, "phone", &user)).unwrap() };
            let device = Arc::new(device);
            hub.add(device.clone()).unwrap();
            devices.spawn(async move { delivered(&device).await });
            push.receivers.push(Receiver { user, ..push.receivers[0].clone() });
        }
        // On one thread: what is written by now was written before the delivery was through.
        hub.deliver(push, &Spans::default()).await;
        let written = std::iter::from_fn(|| devices.try_join_next()).count();
        assert!((4..8).contains(&written), "{written} devices had a turn");
    }

    #[tokio::test]
    async fn p5_the_end_of_an_old_connection_does_not_take_the_new_one_along() {
        let hub = Hub::new(4, 1_000);
        let (old, new) = (connection("alice", "phone", "1"), connection("alice", "phone", "2"));
        hub.add(old.clone()).unwrap();
        hub.add(new.clone()).unwrap();
        let drained = poll_fn(|cx| old.outbox.poll_drain(cx)).await;
        assert_eq!(drained.close.unwrap().code, ErrorCode::Replaced);
        hub.remove(&old);
        assert_eq!(hub.deliver(push("alice", vec![0]), &Spans::default()).await, 1);
        hub.remove(&new);
        assert_eq!(hub.deliver(push("alice", vec![0]), &Spans::default()).await, 0);
    }

    #[tokio::test]
    async fn p5_a_place_that_was_not_kept_is_given_up() {
        let hub = Hub::new(4, 1_000);
        let (left, stayed) = (connection("alice", "phone", "1"), connection("bob", "phone", "2"));
        hub.add(left.clone()).unwrap();
        drop(hub.place(&left));
        hub.add(stayed.clone()).unwrap();
        hub.place(&stayed).keep();
        let delivered = async |user| hub.deliver(push(user, vec![0]), &Spans::default()).await;
        assert_eq!((delivered("alice").await, delivered("bob").await), (0, 1));
    }

    #[test]
    fn p7_connections_of_a_user_are_bounded() {
        let hub = Hub::new(2, 1_000);
        hub.add(connection("alice", "phone", "1")).unwrap();
        hub.add(connection("alice", "tablet", "2")).unwrap();
        assert_eq!(hub.add(connection("alice", "laptop", "3")).unwrap_err().code, ErrorCode::RateLimited);
        hub.add(connection("bob", "phone", "4")).unwrap();
    }

    #[tokio::test]
    async fn p8_only_the_receiver_gets_a_delivery_and_a_wrong_index_costs_nothing() {
        let hub = Hub::new(2, 1_000);
        hub.add(connection("alice", "phone", "1")).unwrap();
        assert_eq!(hub.deliver(push("bob", vec![0]), &Spans::default()).await, 0);
        assert_eq!(hub.deliver(push("alice", vec![99]), &Spans::default()).await, 1);
    }

    #[test]
    fn a_session_is_disconnected_but_not_what_was_opened_since() {
        let hub = Hub::new(4, 1_000);
        hub.add(connection("alice", "phone", "1")).unwrap();
        hub.add(connection("alice", "tablet", "2")).unwrap();
        let fault = ApiError::new(ErrorCode::Revoked, "logged out");
        assert_eq!(hub.disconnect("alice", "s-phone", 1_000, &fault), 0);
        assert_eq!(hub.disconnect("alice", "s-phone", 1_001, &fault), 1);
        assert_eq!(hub.disconnect("alice", "s-other", i64::MAX, &fault), 0);
    }
}
