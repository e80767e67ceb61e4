//! The connections of this gateway, by user: who gets a delivery, and which connection a new one replaces.

use crate::{
    codec::Format,
    metrics,
    outbox::{Outbox, Outgoing},
};
use abi::{
    Fault,
    error::ErrorCode,
    splice::EncodedEntry,
    v1::{PushRequest, Receipt, Receiver, ReceiverSeq, ServerFrame, server_frame::Frame},
};
use axum::extract::ws::Message;
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
}

impl Hub {
    /// An empty hub that allows each user so many connections.
    pub fn new(max_per_user: usize) -> Self {
        Self { users: Mutex::default(), max_per_user }
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
    pub fn add(&self, connection: Arc<Connection>) -> Result<(), Fault> {
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
            return Err(Fault::new(
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
    pub fn disconnect(&self, user: &str, session: &str, opened_before_ms: i64, fault: &Fault) -> u32 {
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
    pub fn deliver(&self, push: PushRequest, spans: &Spans) -> u32 {
        let entries: Vec<_> = push.entries.into_iter().map(EncodedEntry::new).collect();
        let mut queued = 0;
        let mut wanted = Vec::new();
        for receiver in &push.receivers {
            wanted.clear();
            wanted.extend(receiver.entries.iter().filter_map(|index| entries.get(*index as usize)));
            queued += self.deliver_to(receiver, &wanted, spans);
        }
        push.receipts.into_iter().for_each(|receipt| queued += self.deliver_receipt(receipt));
        metrics::delivered(queued);
        queued
    }

    fn deliver_to(&self, receiver: &Receiver, entries: &[&EncodedEntry], spans: &Spans) -> u32 {
        let seq = receiver.receiver_seq.unwrap_or(ReceiverSeq { epoch: 0, seq: 0 });
        // A push is in the order of the log, so the first is the oldest.
        let sent_at_ms = entries.first().map(|entry| entry.entry().sent_at_ms);
        let mut frames = PerFormat::default();
        let connections = self.connections(&receiver.user);
        for connection in &connections {
            let frame = frames.get(connection.format, |format| format.deliver(seq, receiver.raised, entries));
            connection.outbox.push(match sent_at_ms {
                Some(sent_at_ms) => {
                    let messages = entries.iter().map(|entry| &*entry.entry().message_id);
                    let mut writing = spans.children_among("write", Kind::Internal, messages);
                    writing.set("godwit.connection", || connection.id.clone());
                    Outgoing::Delivery { frame, sent_at_ms, writing }
                }
                None => Outgoing::Encoded(frame),
            });
        }
        connections.len().try_into().unwrap_or(u32::MAX)
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
pub fn replaced_fault() -> Fault {
    Fault::new(ErrorCode::Replaced, "the same device connected again")
}

/// A frame made once per wire format, when it is first needed.
#[derive(Default)]
struct PerFormat {
    proto: Option<Message>,
    json: Option<Message>,
}

impl PerFormat {
    fn get(&mut self, format: Format, encode: impl FnOnce(Format) -> Message) -> Message {
        let made = match format {
            Format::Proto => &mut self.proto,
            Format::Json => &mut self.json,
        };
        made.get_or_insert_with(|| encode(format)).clone()
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
    use abi::v1::Entry;
    use std::future::poll_fn;

    fn connection(user: &str, device: &str, id: &str) -> Arc<Connection> {
        Arc::new(Connection {
            id: id.into(),
            identity: Identity { user: user.into(), device: device.into(), session: format!("s-{device}") },
            opened_at_ms: 1_000,
            format: Format::Proto,
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

    #[tokio::test]
    async fn p5_the_end_of_an_old_connection_does_not_take_the_new_one_along() {
        let hub = Hub::new(4);
        let (old, new) = (connection("alice", "phone", "1"), connection("alice", "phone", "2"));
        hub.add(old.clone()).unwrap();
        hub.add(new.clone()).unwrap();
        let drained = poll_fn(|cx| old.outbox.poll_drain(cx)).await;
        assert_eq!(drained.close.unwrap().code, ErrorCode::Replaced);
        hub.remove(&old);
        assert_eq!(hub.deliver(push("alice", vec![0]), &Spans::default()), 1);
        hub.remove(&new);
        assert_eq!(hub.deliver(push("alice", vec![0]), &Spans::default()), 0);
    }

    #[test]
    fn p5_a_place_that_was_not_kept_is_given_up() {
        let hub = Hub::new(4);
        let (left, stayed) = (connection("alice", "phone", "1"), connection("bob", "phone", "2"));
        hub.add(left.clone()).unwrap();
        drop(hub.place(&left));
        hub.add(stayed.clone()).unwrap();
        hub.place(&stayed).keep();
        let delivered = |user| hub.deliver(push(user, vec![0]), &Spans::default());
        assert_eq!((delivered("alice"), delivered("bob")), (0, 1));
    }

    #[test]
    fn p7_connections_of_a_user_are_bounded() {
        let hub = Hub::new(2);
        hub.add(connection("alice", "phone", "1")).unwrap();
        hub.add(connection("alice", "tablet", "2")).unwrap();
        assert_eq!(hub.add(connection("alice", "laptop", "3")).unwrap_err().code, ErrorCode::RateLimited);
        hub.add(connection("bob", "phone", "4")).unwrap();
    }

    #[test]
    fn p8_only_the_receiver_gets_a_delivery_and_a_wrong_index_costs_nothing() {
        let hub = Hub::new(2);
        hub.add(connection("alice", "phone", "1")).unwrap();
        assert_eq!(hub.deliver(push("bob", vec![0]), &Spans::default()), 0);
        assert_eq!(hub.deliver(push("alice", vec![99]), &Spans::default()), 1);
    }

    #[test]
    fn a_session_is_disconnected_but_not_what_was_opened_since() {
        let hub = Hub::new(4);
        hub.add(connection("alice", "phone", "1")).unwrap();
        hub.add(connection("alice", "tablet", "2")).unwrap();
        let fault = Fault::new(ErrorCode::Revoked, "logged out");
        assert_eq!(hub.disconnect("alice", "s-phone", 1_000, &fault), 0);
        assert_eq!(hub.disconnect("alice", "s-phone", 1_001, &fault), 1);
        assert_eq!(hub.disconnect("alice", "s-other", i64::MAX, &fault), 0);
    }
}
