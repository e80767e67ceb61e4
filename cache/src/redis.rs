//! The cache in Redis, shared by all processes.
//!
//! | key | holds |
//! |---|---|
//! | `PREFIX:APP:s:USER:RUN` | counter of a user and index of changes: a hash from subject to the counter after its last change |
//! | `PREFIX:APP:o:RUN` | order of the newest connection |
//! | `PREFIX:APP:r:USER` | routes: connection to expiry, order and gateway |
//! | `PREFIX:APP:p:USER` | presence: time last seen, text |
//! | `PREFIX:APP:w:USER` | watchers of the presence: user to expiry |
//! | `PREFIX:APP:m:CONVERSATION:RUN` | members: version, all of them, and each of them |
//! | `PREFIX:APP:f:CONVERSATION:USER` | fence: exists while the user is being removed; a set of the removals |
//! | `PREFIX:APP:c:RUN` | set of the partitions of the log whose fences are complete |
//! | `PREFIX:run` | marker: the last run of Redis that any process has met, and when it began |
//!
//! All keys expire. Scripts and batches access many keys, so this works with a single Redis, with or without replicas, but not
//! with Redis Cluster.
//!
//! A restarted Redis or a promoted replica may have lost the last writes. Its counters would repeat values, and its
//! groups could list removed members. Therefore the keys of counters and members contain the id of the server's run. In
//! a new run all counters are missing and start new epochs, and members are read from the store. Fences may be missing as well, so
//! each run records the partitions in which they are complete.
//!
//! - `counters`, `routes`, `presence`, `groups`: the parts of the trait.
//! - `connections`: the connections to Redis. `run`: a run of the server.

mod connections;
mod counters;
mod groups;
mod presence;
mod routes;
mod run;

use crate::{Cache, Result};
use connections::{Connections, Request};
use deadpool_redis::redis::{Cmd, FromRedisValue};
use std::time::Duration;

/// Counters, routes and presence expire when their user has not connected for this long.
const USER_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// Users per round trip, because Redis does nothing else while a script runs.
const MAX_USERS: usize = 1_024;

// Scripts take the time from Redis, so that clock differences between processes don't matter. They take epochs from the
// caller, because Redis seeds its random numbers identically after every start. The last argument of every script is the
// id of the server's run.

/// The volatile state in Redis.
pub struct RedisCache {
    connections: Connections,
    prefix: Box<str>,
}

impl std::fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisCache").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl RedisCache {
    /// A cache that connects on its first call; see [`Cache::ping`].
    ///
    /// # Errors
    /// [`Error::Url`](crate::Error::Url) or [`Error::Ca`](crate::Error::Ca).
    pub fn new(config: &abi::config::Redis) -> Result<Self> {
        Ok(Self { connections: Connections::new(config)?, prefix: config.prefix.as_str().into() })
    }

    fn key(&self, app: &str, kind: &str, id: &str) -> String {
        [&self.prefix, ":", app, ":", kind, ":", id].concat()
    }

    async fn call<T: FromRedisValue>(&self, call: &'static str, mut request: Request<'_>) -> Result<T> {
        Ok(self.connections.call(call, &mut request).await?.0)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The answer to `TIME`, seconds and microseconds, in milliseconds.
fn time_millis<'a>(time: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut parts = time.into_iter().map(|part| part.parse::<u64>().unwrap_or_default());
    let (seconds, micros) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    seconds * 1_000 + micros / 1_000
}

/// A route in Redis, `EXPIRY ORDER GATEWAY`, with the expiry in milliseconds.
struct Lease<'a> {
    expires: u64,
    gateway: &'a str,
}

impl<'a> Lease<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let (expires, _order, gateway) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { expires: expires.parse().ok()?, gateway })
    }
}

#[async_trait::async_trait]
impl Cache for RedisCache {
    async fn ping(&self) -> Result<()> {
        let mut command = Cmd::new();
        command.arg("PING");
        self.call("ping", Request::Command(command)).await
    }
}
