//! Shared volatile state of the services: receiver seqs (one counter per user), routes, and members of groups.
//!
//! One object-safe trait, [`Cache`], has two implementations: [`RedisCache`] for many processes and [`MemoryCache`] for a
//! single one. One conformance suite runs over both.
//!
//! Nothing here is durable. Guarantees:
//! - A receiver's `seq` never decreases within an epoch. A counter that was lost starts again with a new epoch (P4).
//! - A connection's route is removed only with that connection or when its lease expires (P5).
//! - An older version of a group's members never replaces a newer one. Every entry expires, so a lost update is
//!   corrected by the next read from the store.
//! - Everything is bounded: in memory by count, in Redis by expiry (P7).
//!
//! Every call is one round trip; a counter without an epoch needs a second one. If all data is lost, the services only
//! work more for a short time: counters start new epochs, gateways renew their routes with the next heartbeats, and
//! members are read from the store.
//!
//! - [`memory`]: the implementation for a single process.
//! - [`redis`]: the implementation over Redis, with its scripts and connections.

mod error;
pub mod memory;
mod metrics;
#[cfg(feature = "redis")]
pub mod redis;

pub use error::Error;
pub use memory::MemoryCache;
pub use metrics::describe_metrics;
#[cfg(feature = "redis")]
pub use redis::RedisCache;

use abi::v1::{Members, ReceiverSeq};
use std::{pin::Pin, sync::Arc, time::Duration};

/// Time to live of a group's members. It is the longest time that a lost update can go unnoticed.
pub const MEMBERS_TTL: Duration = Duration::from_secs(60);

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Receiver seqs, routes and members of groups. Callers may repeat every call.
#[async_trait::async_trait]
pub trait Cache: Send + Sync + 'static {
    /// Increments the receiver seq of each user by the given number. Returns the new values in the same order. A
    /// missing counter starts a new epoch.
    async fn increment(&self, app: &str, users: &[(&str, u32)]) -> Result<Vec<ReceiverSeq>>;

    /// Registers the route of a connection: it is at `gateway`, with a lease of `ttl`. Repeat the call to renew the
    /// lease. Returns the user's receiver seq.
    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        ttl: Duration,
    ) -> Result<ReceiverSeq>;

    /// Removes the route of one connection. Other connections of the same user stay, also on the same gateway.
    async fn disconnect(&self, app: &str, user: &str, connection: &str) -> Result<()>;

    /// The gateways with connections of each user, in the order of the users. A user's gateways are distinct.
    async fn routes(&self, app: &str, users: &[&str]) -> Result<Vec<Vec<Arc<str>>>>;

    /// The members of a conversation, if they are cached.
    async fn members(&self, app: &str, conversation: &str) -> Result<Option<Arc<Members>>>;

    /// Caches the members of a conversation for `ttl`, unless a newer version is cached.
    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        ttl: Duration,
    ) -> Result<()>;

    /// Checks that the cache responds. Readiness probes use it.
    async fn ping(&self) -> Result<()>;
}

/// A readiness probe that pings a cache.
pub fn probe(
    cache: Arc<dyn Cache>,
) -> impl FnMut() -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + 'static {
    move || {
        let cache = Arc::clone(&cache);
        Box::pin(async move { cache.ping().await })
    }
}

/// A random new epoch. It is never 0, because devices send 0 while they have no epoch.
fn new_epoch() -> u32 {
    rand::random::<u32>().max(1)
}
