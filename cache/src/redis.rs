//! The cache in Redis, shared by all processes.
//!
//! Keys are `PREFIX:APP:s:USER:RUN` (counter), `PREFIX:APP:r:USER` (routes: connection to expiry and gateway) and
//! `PREFIX:APP:m:CONVERSATION:RUN` (members: version and value). All keys expire. Scripts and batches access many keys, so
//! this works with a single Redis, with or without replicas, but not with Redis Cluster.
//!
//! A counter is one integer, epoch times 2^32 plus `seq`. Increments are the most frequent call, and `INCRBY` in a
//! pipeline costs Redis a seventh of a script. A result without an epoch means that the counter is new; a script then
//! adds an epoch.
//!
//! A restarted Redis or a promoted replica may have lost the last writes. Its counters would repeat values, and its
//! groups could list removed members. Therefore the keys of counters and members contain the id of the server's run. In
//! a new run all counters are missing and start new epochs, and members are read from the store.

mod connections;

use crate::{Cache, Result};
use abi::v1::{Members, ReceiverSeq};
use connections::{Connections, Request};
use deadpool_redis::redis::{Cmd, FromRedisValue, Pipeline, Script};
use prost::Message as _;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// A counter expires when its user has not connected for this long.
const COUNTER_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// Users per round trip, because Redis does nothing else while a script runs.
const MAX_USERS: usize = 4_096;

// Scripts take the time from Redis, so that clock differences between processes don't matter. They take epochs from the
// caller, because Redis seeds its random numbers identically after every start. The last argument of every script is the
// id of the server's run.

static BEGIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/begin.lua")));
static CONNECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/connect.lua")));
static PUT_MEMBERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/put_members.lua")));

/// Counters, routes and members in Redis.
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

    /// Starts an epoch for each of the counters in `seqs` that has none.
    async fn begin_epochs(&self, app: &str, users: &[(&str, u32)], seqs: &mut [ReceiverSeq]) -> Result<()> {
        let mut script = BEGIN.prepare_invoke();
        script.arg(new_epoch()).arg(millis(COUNTER_TTL));
        let mut new = Vec::new();
        for ((user, by), seq) in users.iter().zip(seqs).filter(|(_, seq)| seq.epoch == 0) {
            script.key(self.key(app, "s", user)).arg(by);
            new.push(seq);
        }
        if new.is_empty() {
            return Ok(());
        }
        let counters: Vec<(u64, bool)> = self.call("begin", Request::Script(script)).await?;
        for (seq, (counter, missing)) in new.into_iter().zip(counters) {
            let begun = receiver_seq(counter);
            // Other callers may have incremented the counter meanwhile. Keep the result of our own increment, unless the
            // counter was lost in between.
            let keeps_seq = !missing && seq.seq > 0;
            *seq = ReceiverSeq { epoch: begun.epoch, seq: if keeps_seq { seq.seq } else { begun.seq } };
        }
        Ok(())
    }

    async fn call<T: FromRedisValue>(&self, call: &'static str, mut request: Request<'_>) -> Result<T> {
        self.connections.call(call, &mut request).await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The value of one epoch in a counter.
const EPOCH: u64 = 1 << 32;

fn receiver_seq(counter: u64) -> ReceiverSeq {
    ReceiverSeq { epoch: u32::try_from(counter / EPOCH).unwrap_or(u32::MAX), seq: counter % EPOCH }
}

/// A new epoch, as a part of a counter. It has 31 bits because Redis's integers are signed.
fn new_epoch() -> u64 {
    u64::from(crate::new_epoch() / 2).max(1) * EPOCH
}

/// The distinct gateways of leases that have not expired. A lease is `EXPIRY GATEWAY`, with the expiry in milliseconds.
fn gateways(leases: &[String], now: u64) -> Vec<Arc<str>> {
    let mut gateways: Vec<Arc<str>> = Vec::new();
    for (expiry, gateway) in leases.iter().filter_map(|lease| lease.split_once(' ')) {
        let is_valid = expiry.parse().is_ok_and(|expiry: u64| expiry > now);
        if is_valid && !gateways.iter().any(|known| **known == *gateway) {
            gateways.push(gateway.into());
        }
    }
    gateways
}

#[async_trait::async_trait]
impl Cache for RedisCache {
    async fn increment(&self, app: &str, users: &[(&str, u32)]) -> Result<Vec<ReceiverSeq>> {
        let mut incremented = Vec::with_capacity(users.len());
        for users in users.chunks(MAX_USERS) {
            let first = incremented.len();
            let commands = |run: &str| {
                let mut commands = Pipeline::with_capacity(users.len());
                for (user, by) in users {
                    let key = [&self.prefix, ":", app, ":s:", user, ":", run].concat();
                    commands.cmd("INCRBY").arg(key).arg(by);
                }
                commands
            };
            let counters: Vec<u64> = self.call("raise", Request::Commands(&commands)).await?;
            incremented.extend(counters.into_iter().map(receiver_seq));
            self.begin_epochs(app, users, &mut incremented[first..]).await?;
        }
        Ok(incremented)
    }

    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        ttl: Duration,
    ) -> Result<ReceiverSeq> {
        let mut script = CONNECT.prepare_invoke();
        script.key(self.key(app, "r", user)).key(self.key(app, "s", user));
        script.arg(connection).arg(gateway).arg(millis(ttl));
        script.arg(new_epoch()).arg(millis(COUNTER_TTL));
        let counter: u64 = self.call("connect", Request::Script(script)).await?;
        Ok(receiver_seq(counter))
    }

    async fn disconnect(&self, app: &str, user: &str, connection: &str) -> Result<()> {
        let mut command = Cmd::new();
        command.arg("HDEL").arg(self.key(app, "r", user)).arg(connection);
        self.call("disconnect", Request::Command(command)).await
    }

    async fn routes(&self, app: &str, users: &[&str]) -> Result<Vec<Vec<Arc<str>>>> {
        let mut routes = Vec::with_capacity(users.len());
        for users in users.chunks(MAX_USERS) {
            let commands = |_: &str| {
                let mut commands = Pipeline::with_capacity(users.len() + 1);
                for user in users {
                    commands.cmd("HVALS").arg(self.key(app, "r", user));
                }
                // A list of strings like the leases: seconds and microseconds.
                commands.cmd("TIME");
                commands
            };
            let mut leases: Vec<Vec<String>> = self.call("routes", Request::Commands(&commands)).await?;
            let time = leases.pop().unwrap_or_default();
            let mut parts = time.iter().map(|part| part.parse::<u64>().unwrap_or_default());
            let (seconds, micros) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let now = seconds * 1_000 + micros / 1_000;
            routes.extend(leases.iter().map(|leases| gateways(leases, now)));
        }
        Ok(routes)
    }

    async fn members(&self, app: &str, conversation: &str) -> Result<Option<Arc<Members>>> {
        let commands = |run: &str| {
            let key = [&self.prefix, ":", app, ":m:", conversation, ":", run].concat();
            let mut commands = Pipeline::with_capacity(1);
            commands.cmd("HGET").arg(key).arg("m");
            commands
        };
        let [bytes]: [Option<Vec<u8>>; 1] = self.call("members", Request::Commands(&commands)).await?;
        // Treat undecodable members as missing: callers then read them from the store.
        let members = bytes.and_then(|bytes| Members::decode(bytes.as_slice()).ok());
        crate::metrics::members(members.is_some());
        Ok(members.map(Arc::new))
    }

    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        ttl: Duration,
    ) -> Result<()> {
        let mut script = PUT_MEMBERS.prepare_invoke();
        script.key(self.key(app, "m", conversation));
        script.arg(members.version).arg(members.encode_to_vec()).arg(millis(ttl));
        self.call("put_members", Request::Script(script)).await
    }

    async fn ping(&self) -> Result<()> {
        let mut command = Cmd::new();
        command.arg("PING");
        self.call("ping", Request::Command(command)).await
    }
}
