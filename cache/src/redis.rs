//! The cache in Redis, shared by all processes.
//!
//! Keys are `PREFIX:APP:s:USER` (counter: epoch and number), `PREFIX:APP:r:USER` (routes: connection to expiry and
//! gateway) and `PREFIX:APP:m:CONVERSATION` (members: version and value). All of them expire. A script touches many
//! keys, so it is one Redis, or one with replicas; not Redis Cluster.
//!
//! A Redis that crashed, or a replica that took over, may come back with the counters of a moment ago, and would hand
//! out the same numbers twice. So each counter also holds which run of which server wrote it, and one that another
//! run wrote begins a new epoch like a missing one.

mod lanes;

use crate::{Cache, Result, new_epoch};
use abi::v1::{Members, ReceiverSeq};
use deadpool_redis::redis::{Cmd, FromRedisValue, Script};
use lanes::{Lanes, Request};
use prost::Message as _;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// A counter whose user did not connect and got nothing new for so long is forgotten.
const COUNTER_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Most users per script: Redis does nothing else while one runs.
const MAX_USERS: usize = 4_096;

// Times come from Redis, so that the processes' clocks don't matter, and epochs from the caller, because Redis seeds its
// random numbers alike after every start. Every script is given the run of its server as its last argument.

static RAISE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/raise.lua")));
static CONNECT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/connect.lua")));
static ROUTES: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/routes.lua")));
static PUT_MEMBERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("redis/put_members.lua")));

/// Counters, routes and members in Redis.
pub struct RedisCache {
    lanes: Lanes,
    prefix: Box<str>,
}

impl std::fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisCache").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl RedisCache {
    /// A cache that connects when it is first used; see [`Cache::ping`].
    ///
    /// # Errors
    /// [`Error::Url`](crate::Error::Url) if the URL is none.
    pub fn new(config: &abi::config::Redis) -> Result<Self> {
        Ok(Self { lanes: Lanes::new(config)?, prefix: config.prefix.as_str().into() })
    }

    fn key(&self, app: &str, kind: &str, id: &str) -> String {
        [&self.prefix, ":", app, ":", kind, ":", id].concat()
    }

    async fn call<T: FromRedisValue>(&self, call: &'static str, mut request: Request<'_>) -> Result<T> {
        self.lanes.call(call, &mut request).await
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn receiver_seq((epoch, seq): (u32, u64)) -> ReceiverSeq {
    ReceiverSeq { epoch, seq }
}

#[async_trait::async_trait]
impl Cache for RedisCache {
    async fn raise(&self, app: &str, users: &[(&str, u32)]) -> Result<Vec<ReceiverSeq>> {
        let mut raised = Vec::with_capacity(users.len());
        for users in users.chunks(MAX_USERS) {
            let mut script = RAISE.prepare_invoke();
            script.arg(new_epoch()).arg(millis(COUNTER_LIFE));
            for (user, by) in users {
                script.key(self.key(app, "s", user)).arg(by);
            }
            let values: Vec<(u32, u64)> = self.call("raise", Request::Script(script)).await?;
            raised.extend(values.into_iter().map(receiver_seq));
        }
        Ok(raised)
    }

    async fn current(&self, app: &str, user: &str) -> Result<ReceiverSeq> {
        let mut values = self.raise(app, &[(user, 0)]).await?;
        Ok(values.pop().unwrap_or_default())
    }

    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        life: Duration,
    ) -> Result<ReceiverSeq> {
        let mut script = CONNECT.prepare_invoke();
        script.key(self.key(app, "r", user)).key(self.key(app, "s", user));
        script.arg(connection).arg(gateway).arg(millis(life));
        script.arg(new_epoch()).arg(millis(COUNTER_LIFE));
        self.call("connect", Request::Script(script)).await.map(receiver_seq)
    }

    async fn disconnect(&self, app: &str, user: &str, connection: &str) -> Result<()> {
        let mut command = Cmd::new();
        command.arg("HDEL").arg(self.key(app, "r", user)).arg(connection);
        self.call("disconnect", Request::Command(command)).await
    }

    async fn routes(&self, app: &str, users: &[&str]) -> Result<Vec<Vec<Arc<str>>>> {
        let mut routes = Vec::with_capacity(users.len());
        for users in users.chunks(MAX_USERS) {
            let mut script = ROUTES.prepare_invoke();
            for user in users {
                script.key(self.key(app, "r", user));
            }
            let gateways: Vec<Vec<String>> = self.call("routes", Request::Script(script)).await?;
            routes
                .extend(gateways.into_iter().map(|list| list.into_iter().map(Arc::from).collect::<Vec<_>>()));
        }
        Ok(routes)
    }

    async fn members(&self, app: &str, conversation: &str) -> Result<Option<Arc<Members>>> {
        let mut command = Cmd::new();
        command.arg("HGET").arg(self.key(app, "m", conversation)).arg("m");
        let bytes: Option<Vec<u8>> = self.call("members", Request::Command(command)).await?;
        // What can't be read is as good as missing: the store knows.
        let members = bytes.and_then(|bytes| Members::decode(bytes.as_slice()).ok());
        crate::metrics::members(members.is_some());
        Ok(members.map(Arc::new))
    }

    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        life: Duration,
    ) -> Result<()> {
        let mut script = PUT_MEMBERS.prepare_invoke();
        script.key(self.key(app, "m", conversation));
        script.arg(members.version).arg(members.encode_to_vec()).arg(millis(life));
        self.call("put_members", Request::Script(script)).await
    }

    async fn ping(&self) -> Result<()> {
        let mut command = Cmd::new();
        command.arg("PING");
        self.call("ping", Request::Command(command)).await
    }
}
