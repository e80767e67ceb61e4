//! A connection of a device, and its order among the connections of the device.

use crate::{codec::Format, outbox::Outbox};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// The authenticated identity of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// Session id.
    pub session: String,
}

/// A connection whose device has sent a valid hello.
#[derive(Debug)]
pub struct Connection {
    /// Unique among all gateways and their restarts.
    pub id: String,
    /// The user and device.
    pub identity: Identity,
    /// Its order among the connections of the device.
    pub order: Order,
    /// Wire format.
    pub format: Format,
    /// Frames to write.
    pub outbox: Arc<Outbox>,
    /// The users whose presence the device watches.
    pub watched: Mutex<Vec<String>>,
}

impl Connection {
    /// The users whose presence the device watches.
    pub fn watched(&self) -> Vec<String> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the users whose presence the device watches.
    pub fn set_watched(&self, users: Vec<String>) {
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = users;
    }
}

/// Whether a connection is older than another one of its device on another gateway. The cache counts connections, because the
/// clocks of two gateways differ. Changes happen under the lock of the [`Hub`](super::Hub).
#[derive(Debug, Default)]
pub struct Order {
    /// The order that the cache gave to this connection. 0 until its route is registered.
    value: AtomicU64,
    /// The largest order of a connection that replaces this one. Only a connection without an order has to remember it.
    replaced_by: AtomicU64,
}

impl Order {
    /// The order that the cache gave to this connection. 0: its route is not registered.
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Notes the order that the cache gave to this connection. Returns whether a later connection has replaced it meanwhile.
    pub(super) fn set(&self, order: u64) -> bool {
        self.value.store(order, Ordering::Relaxed);
        self.is_before(self.replaced_by.load(Ordering::Relaxed))
    }

    /// Notes that a connection with the order `later` replaces older ones. Returns whether this connection is older.
    pub(super) fn replaced_by(&self, later: u64) -> bool {
        self.replaced_by.fetch_max(later, Ordering::Relaxed);
        self.is_before(later)
    }

    fn is_before(&self, replaced_by: u64) -> bool {
        (1..replaced_by).contains(&self.value())
    }
}
