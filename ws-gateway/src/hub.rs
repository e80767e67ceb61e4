//! The connections of this gateway, by user. The hub distributes deliveries to them, and lets a new connection replace an older
//! one of the same device.

mod connection;
mod deliveries;

use crate::{
    codec::Format,
    limits::Limits,
    memory::Memory,
    metrics,
    outbox::{Encoded, Outgoing},
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{PushRequest, PushedSignal, Receiver},
};
use axum::extract::ws::Message;
use deliveries::{Delivery, PushedEntry, deliveries};
use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use utils::trace::{Kind, Spans};

pub use connection::{Connection, Identity, Order};

/// All connections, by user. The lock is held briefly, never across an await.
#[derive(Debug)]
pub struct Hub {
    users: Mutex<HashMap<String, Vec<Arc<Connection>>>>,
    limits: Limits,
    memory: Arc<Memory>,
}

/// After a delivery has queued this many bytes it yields, so that connections can write them before it queues more.
const YIELD_AFTER: usize = 1 << 20;

fn of_session<'a>(
    users: &'a HashMap<String, Vec<Arc<Connection>>>,
    user: &str,
    session: &'a str,
) -> impl Iterator<Item = &'a Arc<Connection>> {
    users.get(user).into_iter().flatten().filter(move |connection| connection.identity.session == session)
}

impl Hub {
    /// An empty hub.
    pub fn new(limits: Limits) -> Self {
        Self { users: Mutex::default(), limits, memory: Memory::new(limits.max_outbox_total) }
    }

    /// The memory of the outboxes and of answers in progress.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Closes the connections with the largest queues until the queues have at most three quarters of the limit, so that the next
    /// call is not needed soon.
    pub fn shed(&self) {
        let queued = |connection: Arc<Connection>| Some((connection.outbox.queued_bytes()?, connection));
        let mut queues: Vec<_> =
            self.all().into_iter().filter_map(queued).filter(|(bytes, _)| *bytes > 0).collect();
        queues.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        let mut used: usize = queues.iter().map(|(bytes, _)| bytes).sum();
        let allowed = self.memory.max() / 4 * 3;
        let mut closed = 0;
        for (bytes, connection) in queues {
            if used <= allowed {
                break;
            }
            connection.outbox.close_too_slow();
            used -= bytes;
            closed += 1;
        }
        tracing::warn!(
            closed,
            limit = self.memory.max(),
            "too many bytes are queued for slow devices; closed the connections with the largest queues"
        );
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Connection>>>> {
        // No code panics while it holds the lock, so the map is consistent even if the lock is poisoned.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection and closes an older one of the same device. A device may reconnect before the gateway notices that its
    /// old socket is dead.
    ///
    /// # Errors
    /// `RATE_LIMITED` if the user has too many connections.
    pub fn add(&self, connection: Arc<Connection>) -> Result<(), ApiError> {
        let mut users = self.users();
        let connections = users.entry(connection.identity.user.clone()).or_default();
        connections.retain(|other| {
            let is_replaced = other.identity.device == connection.identity.device;
            if is_replaced {
                other.outbox.close(replaced());
            }
            !is_replaced
        });
        if connections.len() >= self.limits.connections_per_user {
            return Err(ApiError::new(
                ErrorCode::RateLimited,
                format!(
                    "you have {} connections, the maximum; close one first",
                    self.limits.connections_per_user
                ),
            ));
        }
        connections.push(connection);
        Ok(())
    }

    /// Guards a connection that was added: dropping the guard removes the connection, unless it was kept.
    pub fn registration<'a>(&'a self, connection: &'a Connection) -> Registration<'a> {
        Registration { hub: self, connection: Some(connection) }
    }

    /// Removes a connection, but not another one of the same device.
    pub fn remove(&self, connection: &Connection) {
        let mut users = self.users();
        if let Some(connections) = users.get_mut(&connection.identity.user) {
            connections.retain(|other| other.id != connection.id);
            if connections.is_empty() {
                users.remove(&connection.identity.user);
            }
            // The map never shrinks by itself. Free its memory after most devices have moved to other gateways.
            if users.capacity() > 1_024 && users.len() < users.capacity() / 8 {
                users.shrink_to_fit();
            }
        }
    }

    /// Sets the order of a connection whose route was registered. Closes the connection if a later one has replaced it meanwhile.
    pub fn set_order(&self, connection: &Connection, order: u64) {
        let _users = self.users();
        if connection.order.set(order) {
            connection.outbox.close(replaced());
        }
    }

    /// Closes the connections of a session that are older than the one with the order `replaced_by`.
    pub fn replace(&self, user: &str, session: &str, replaced_by: u64) {
        let users = self.users();
        for connection in of_session(&users, user, session) {
            if connection.order.replaced_by(replaced_by) {
                connection.outbox.close(replaced());
            }
        }
    }

    /// Closes the connections of a session that has ended.
    pub fn revoke(&self, user: &str, session: &str) {
        let users = self.users();
        of_session(&users, user, session).for_each(|connection| connection.outbox.close(revoked()));
    }

    /// All connections, for the drain.
    pub fn all(&self) -> Vec<Arc<Connection>> {
        self.users().values().flatten().cloned().collect()
    }

    /// Queues a delivery for the connected devices and returns their number. Spans of socket writes become children of `spans`.
    /// If the future is dropped half-way, the remaining devices find out with their next heartbeat.
    pub async fn deliver(&self, push: PushRequest, spans: &Spans) -> u32 {
        let entries: Vec<_> = push.entries.into_iter().map(PushedEntry::from).collect();
        let (mut queued, mut bytes) = (0, 0);
        let mut received = Vec::new();
        for receiver in &push.receivers {
            received.clear();
            received.extend(receiver.entries.iter().filter_map(|index| entries.get(*index as usize)));
            let (connections, size) = self.deliver_to(receiver, &received, spans);
            queued += connections;
            bytes += size;
            if self.memory.is_over() {
                self.shed();
            }
            if bytes >= YIELD_AFTER {
                bytes = 0;
                tokio::task::yield_now().await;
            }
        }
        push.signals.into_iter().for_each(|signal| queued += self.deliver_signal(signal));
        metrics::delivered(queued);
        queued
    }

    /// Queues entries for one receiver. Returns the number of connections, and of bytes queued.
    fn deliver_to(&self, receiver: &Receiver, entries: &[&PushedEntry], spans: &Spans) -> (u32, usize) {
        let connections = self.connections(&receiver.user);
        let is_shared = connections.len() > 1;
        let mut frames = PerFormat::default();
        let (mut queued, mut bytes) = (0, 0);
        for connection in &connections {
            let encoded = |message| self.encoded(message, is_shared);
            let frames = frames
                .get(connection.format, |format| deliveries(receiver, entries, format, self.limits, encoded));
            for Delivery { frame, entries } in frames {
                let frame = frame.clone();
                let outgoing = match entries.first() {
                    // Entries are in the order of the log, so the first one is the oldest.
                    Some(oldest) => {
                        let messages = entries.iter().map(|entry| &*entry.message_id);
                        let mut writing = spans.children_among("write", Kind::Internal, messages);
                        writing.set("godwit.connection", || connection.id.clone());
                        Outgoing::Delivery { frame, sent_at_ms: oldest.sent_at_ms, writing }
                    }
                    None => Outgoing::Encoded(frame),
                };
                bytes += outgoing.size();
                connection.outbox.push(outgoing);
            }
            queued += 1;
        }
        (queued, bytes)
    }

    fn encoded(&self, message: Message, is_shared: bool) -> Encoded {
        if is_shared { Encoded::shared(message, &self.memory) } else { Encoded::own(message) }
    }

    fn deliver_signal(&self, signal: PushedSignal) -> u32 {
        let mut frames = PerFormat::default();
        let mut queued = 0;
        for user in &signal.users {
            for connection in self.connections(user) {
                let encode = |format: Format| Some(self.encoded(format.signal(&signal.signal)?, true));
                if let Some(frame) = frames.get(connection.format, encode) {
                    connection.outbox.push(Outgoing::Encoded(frame.clone()));
                    queued += 1;
                }
            }
        }
        queued
    }

    fn connections(&self, user: &str) -> Vec<Arc<Connection>> {
        self.users().get(user).cloned().unwrap_or_default()
    }
}

/// The reason to close the connections of a session that has ended.
fn revoked() -> ApiError {
    ApiError::new(ErrorCode::Revoked, "this device was logged out")
}

/// The reason to close a connection whose device has a newer one.
fn replaced() -> ApiError {
    ApiError::new(ErrorCode::Replaced, "the same device connected again")
}

/// A value per wire format, made when it is first needed.
struct PerFormat<T> {
    proto: Option<T>,
    json: Option<T>,
}

impl<T> Default for PerFormat<T> {
    fn default() -> Self {
        Self { proto: None, json: None }
    }
}

impl<T> PerFormat<T> {
    fn get(&mut self, format: Format, make: impl FnOnce(Format) -> T) -> &T {
        let value = match format {
            Format::Proto => &mut self.proto,
            Format::Json => &mut self.json,
        };
        value.get_or_insert_with(|| make(format))
    }
}

/// Removes a connection from the hub when it is dropped, because the device may leave before its handshake completes.
pub struct Registration<'a> {
    hub: &'a Hub,
    connection: Option<&'a Connection>,
}

impl Registration<'_> {
    /// Keeps the connection in the hub.
    pub fn keep(mut self) {
        self.connection = None;
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection {
            self.hub.remove(connection);
        }
    }
}

#[cfg(test)]
mod tests;
