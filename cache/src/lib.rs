//! What the services share about who is where: receivers' sequence counters, routes, members of groups.
//!
//! One object-safe trait, [`Cache`], with two implementations: [`RedisCache`] for many processes, [`MemoryCache`] for
//! one. A single conformance suite runs over both.
//!
//! Nothing here is durable, and nothing durable may be asked of it. It promises:
//! - a receiver's `seq` never falls within an epoch; a counter that was lost comes back with another epoch (P4);
//! - a connection's route goes only with that connection, or with its lease (P5);
//! - an older version of a group's members never replaces a newer one, and every entry expires, so an update that
//!   was lost heals by itself;
//! - everything is bounded: in memory by count, in Redis by expiry (P7).
//!
//! Every call is one round trip (a counter that begins takes a second one). Losing all of it costs a moment of more work:
//! counters begin new epochs, gateways renew their routes with the next heartbeats, members are asked of the store.
//!
//! - [`memory`]: the implementation for one process.
//! - [`redis`]: the implementation over Redis; its scripts, its connections.

mod error;
pub mod memory;
mod metrics;
pub mod redis;

pub use error::Error;
pub use memory::MemoryCache;
pub use metrics::describe_metrics;
pub use redis::RedisCache;

use abi::v1::{Members, ReceiverSeq};
use std::{pin::Pin, sync::Arc, time::Duration};

/// How long members of a group are believed: the longest that a lost update can go unnoticed.
pub const MEMBERS_TTL: Duration = Duration::from_secs(60);

/// What a call gives.
pub type Result<T> = std::result::Result<T, Error>;

/// Receivers' counters, routes and members of groups. Every call may be repeated.
#[async_trait::async_trait]
pub trait Cache: Send + Sync + 'static {
    /// Raises counters of users, each by its own number, and gives their values after it, in the same order.
    /// A counter that is missing begins a new epoch.
    async fn raise(&self, app: &str, users: &[(&str, u32)]) -> Result<Vec<ReceiverSeq>>;

    /// Says that a connection of a user is at a gateway, for `life` from now, and gives the user's counter.
    /// The same call renews it.
    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        life: Duration,
    ) -> Result<ReceiverSeq>;

    /// Forgets one connection of a user. Others of the same user, on the same gateway or not, stay.
    async fn disconnect(&self, app: &str, user: &str, connection: &str) -> Result<()>;

    /// The gateways that hold connections of each user, every gateway once, in the order of the users.
    async fn routes(&self, app: &str, users: &[&str]) -> Result<Vec<Vec<Arc<str>>>>;

    /// The members of a conversation, if known.
    async fn members(&self, app: &str, conversation: &str) -> Result<Option<Arc<Members>>>;

    /// Remembers the members of a conversation for `life`, unless a newer version is known.
    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        life: Duration,
    ) -> Result<()>;

    /// Returns when the cache answers: for readiness.
    async fn ping(&self) -> Result<()>;
}

/// Asks a cache whether it answers: for the readiness probe of a program.
pub fn probe(
    cache: Arc<dyn Cache>,
) -> impl FnMut() -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send + 'static {
    move || {
        let cache = Arc::clone(&cache);
        Box::pin(async move { cache.ping().await })
    }
}

/// A new epoch: any number but 0, which devices without a value send.
fn new_epoch() -> u32 {
    rand::random::<u32>().max(1)
}
