//! The state of a user.

use super::{change_index::ChangeIndex, generational_map::Weigh};
use crate::{Presence, new_epoch};
use abi::v1::ReceiverSeq;
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// The weight of a user without changes, in units of a subject in the index: about 45 bytes.
const WEIGHT: usize = 8;

#[derive(Debug)]
pub(super) struct User {
    epoch: u32,
    seq: u64,
    pub(super) changes: ChangeIndex,
    // Empty for offline users, and then without an allocation.
    routes: Vec<Route>,
    /// When the last connection was closed, milliseconds since 1970-01-01 UTC.
    last_seen_ms: Option<i64>,
    pub(super) text: Box<str>,
}

#[derive(Debug)]
struct Route {
    connection: Box<str>,
    gateway: Arc<str>,
    order: u64,
    expires: Instant,
}

impl Weigh for User {
    fn weight(&self) -> usize {
        WEIGHT + self.changes.len()
    }
}

impl User {
    pub(super) fn new() -> Self {
        Self {
            epoch: new_epoch(),
            seq: 0,
            changes: ChangeIndex::default(),
            routes: Vec::new(),
            last_seen_ms: None,
            text: Box::default(),
        }
    }

    pub(super) fn receiver_seq(&self) -> ReceiverSeq {
        ReceiverSeq { epoch: self.epoch, seq: self.seq }
    }

    /// Increments the receiver seq and returns its `seq`.
    pub(super) fn increment(&mut self, by: u32) -> u64 {
        self.seq += u64::from(by);
        self.seq
    }

    /// Registers or renews the route of a connection. Returns its order, which is that of the existing route if there is one,
    /// and whether the user had no other connection.
    pub(super) fn connect(
        &mut self,
        connection: &str,
        gateway: &str,
        order: impl FnOnce() -> u64,
        ttl: Duration,
    ) -> (u64, bool) {
        let now = Instant::now();
        self.routes.retain(|route| route.expires > now || &*route.connection == connection);
        let was_offline = self.routes.iter().all(|route| &*route.connection == connection);
        let expires = now + ttl;
        if let Some(route) = self.routes.iter_mut().find(|route| &*route.connection == connection) {
            route.expires = expires;
            if &*route.gateway != gateway {
                route.gateway = gateway.into();
            }
            return (route.order, was_offline);
        }
        if was_offline {
            self.text = Box::default();
        }
        let order = order();
        self.routes.push(Route { connection: connection.into(), gateway: gateway.into(), order, expires });
        (order, was_offline)
    }

    /// Removes a route. Returns whether the user is offline.
    pub(super) fn disconnect(&mut self, connection: &str) -> bool {
        let routes = self.routes.len();
        self.routes.retain(|route| &*route.connection != connection);
        let is_removed = self.routes.len() < routes;
        self.routes.shrink_to_fit();
        let is_offline = !self.is_online(Instant::now());
        if is_offline && is_removed {
            self.last_seen_ms = Some(unix_ms());
            self.text = Box::default();
        }
        is_offline
    }

    fn is_online(&self, now: Instant) -> bool {
        self.routes.iter().any(|route| route.expires > now)
    }

    pub(super) fn gateways(&self, now: Instant) -> Vec<Arc<str>> {
        let mut gateways: Vec<Arc<str>> = Vec::new();
        for route in self.routes.iter().filter(|route| route.expires > now) {
            if !gateways.contains(&route.gateway) {
                gateways.push(Arc::clone(&route.gateway));
            }
        }
        gateways
    }

    pub(super) fn presence(&self, now: Instant) -> Presence {
        if self.is_online(now) {
            return Presence { online: true, last_seen_ms: None, text: self.text.to_string() };
        }
        let expired = self.routes.iter().map(|route| {
            let ago = now.duration_since(route.expires).as_millis();
            unix_ms().saturating_sub_unsigned(u64::try_from(ago).unwrap_or(u64::MAX))
        });
        Presence { online: false, last_seen_ms: expired.chain(self.last_seen_ms).max(), text: String::new() }
    }
}

fn unix_ms() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
