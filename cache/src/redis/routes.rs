//! Routes, and the order of connections.
//!
//! The order is a counter of the application. In a new run of the server it begins at the server's clock in microseconds, so it
//! continues above the values of earlier runs: those began at the clock of an earlier time, and there are fewer connections than
//! microseconds. Renewals and routes that survived raise it too, in case the new server's clock is behind.

use super::{
    Lease, MAX_USERS, RedisCache, USER_TTL,
    connections::Request,
    counters::{new_epoch_value, receiver_seq},
    millis,
    run::Run,
    time_millis,
};
use crate::{Connected, Result, Routes};
use abi::v1::ReceiverSeq;
use deadpool_redis::redis::{Pipeline, Script};
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

static CONNECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("connect.lua")));
static DISCONNECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("disconnect.lua")));

/// A connection to register.
struct Route<'a> {
    connection: &'a str,
    gateway: &'a str,
    /// 0 for a new connection.
    order: u64,
}

impl RedisCache {
    async fn register(&self, app: &str, user: &str, route: Route<'_>, ttl: Duration) -> Result<Connected> {
        let mut script = CONNECT.prepare_invoke();
        script.key(self.key(app, "r", user)).key(self.key(app, "p", user));
        script.key(self.key(app, "s", user)).key([&self.prefix, ":", app, ":o"].concat());
        script.key(self.key(app, "w", user));
        script.arg(route.connection).arg(route.gateway).arg(route.order);
        script.arg(millis(ttl)).arg(millis(USER_TTL)).arg(new_epoch_value());
        let (counter, order, was_offline, is_watched) = self.call("connect", Request::Script(script)).await?;
        Ok(Connected { receiver_seq: receiver_seq(counter), order, was_offline, is_watched })
    }
}

/// The distinct gateways of leases that have not expired.
fn gateways(leases: &[String], now: u64) -> Vec<Arc<str>> {
    let mut gateways: Vec<Arc<str>> = Vec::new();
    for lease in leases.iter().filter_map(|lease| Lease::parse(lease)) {
        if lease.expires > now && !gateways.iter().any(|known| **known == *lease.gateway) {
            gateways.push(lease.gateway.into());
        }
    }
    gateways
}

#[async_trait::async_trait]
impl Routes for RedisCache {
    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        ttl: Duration,
    ) -> Result<Connected> {
        self.register(app, user, Route { connection, gateway, order: 0 }, ttl).await
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
        let renewed = self.register(app, user, Route { connection, gateway, order }, ttl).await?;
        Ok(renewed.receiver_seq)
    }

    async fn disconnect(&self, app: &str, user: &str, connection: &str) -> Result<bool> {
        let mut script = DISCONNECT.prepare_invoke();
        script.key(self.key(app, "r", user)).key(self.key(app, "p", user));
        script.arg(connection).arg(millis(USER_TTL));
        self.call("disconnect", Request::Script(script)).await
    }

    async fn routes(&self, app: &str, users: &[&str]) -> Result<Vec<Vec<Arc<str>>>> {
        let mut routes = Vec::with_capacity(users.len());
        for users in users.chunks(MAX_USERS) {
            let commands = |_: &Run| {
                let mut commands = Pipeline::with_capacity(users.len() + 1);
                for user in users {
                    commands.cmd("HVALS").arg(self.key(app, "r", user));
                }
                // A list of strings like the leases.
                commands.cmd("TIME");
                commands
            };
            let mut leases: Vec<Vec<String>> = self.call("routes", Request::Commands(&commands)).await?;
            let now = time_millis(leases.pop().unwrap_or_default().iter().map(String::as_str));
            routes.extend(leases.iter().map(|leases| gateways(leases, now)));
        }
        Ok(routes)
    }
}
