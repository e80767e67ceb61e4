//! Routes.

use super::{App, MemoryCache, user::User};
use crate::{Connected, Result, Routes};
use abi::v1::ReceiverSeq;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

impl App {
    /// Registers or renews a route. `order` makes the order of a connection without a route.
    fn connect(
        &mut self,
        user: &str,
        connection: &str,
        gateway: &str,
        order: impl FnOnce(&mut u64) -> u64,
        ttl: Duration,
    ) -> Connected {
        let Self { users, watchers, order: newest, .. } = self;
        let is_watched = watchers.get_mut(user).is_some();
        users.update(user, User::new, |user| {
            let (order, was_offline) = user.connect(connection, gateway, || order(newest), ttl);
            Connected { receiver_seq: user.receiver_seq(), order, was_offline, is_watched }
        })
    }
}

#[async_trait::async_trait]
impl Routes for MemoryCache {
    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        ttl: Duration,
    ) -> Result<Connected> {
        let next = |newest: &mut u64| {
            *newest += 1;
            *newest
        };
        Ok(self.with_app(app, |app| app.connect(user, connection, gateway, next, ttl)))
    }

    async fn renew(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        order: u64,
        ttl: Duration,
    ) -> Result<ReceiverSeq> {
        let keep = |newest: &mut u64| {
            *newest = order.max(*newest);
            order
        };
        Ok(self.with_app(app, |app| app.connect(user, connection, gateway, keep, ttl)).receiver_seq)
    }

    async fn disconnect(&self, app: &str, user: &str, connection: &str) -> Result<bool> {
        Ok(self.with_app(app, |app| app.users.get_mut(user).is_none_or(|user| user.disconnect(connection))))
    }

    async fn routes(&self, app: &str, users: &[&str]) -> Result<Vec<Vec<Arc<str>>>> {
        let now = Instant::now();
        Ok(self.with_app(app, |app| {
            let gateways =
                |user: &&str| app.users.get_mut(user).map_or_else(Vec::new, |user| user.gateways(now));
            users.iter().map(gateways).collect()
        }))
    }
}
