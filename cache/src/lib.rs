//! Shared volatile state of the services: receiver seqs with an index of changes, routes, presence, and members of groups.
//!
//! One object-safe trait, [`Cache`], has two implementations: [`RedisCache`] for many processes and [`MemoryCache`] for a
//! single one. One conformance suite runs over both. The trait has four parts, one per kind of state: [`Counters`], [`Routes`],
//! [`Presences`] and [`Groups`].
//!
//! Nothing here is durable. Guarantees:
//! - A receiver's `seq` never decreases within an epoch. A counter that was lost starts again with a new epoch (P4).
//! - The index names every subject that changed after a position, or says that it does not know (P5).
//! - A connection's route is removed only with that connection or when its lease expires (P5).
//! - Of two connections, the later one has the larger order, also after Redis has lost its data.
//! - A missing fence is reported only if the cache cannot have lost it (P1).
//! - An older version of a group's members never replaces a newer one. Every entry expires, so a lost update is
//!   corrected by the next read from the store.
//! - Everything is bounded: in memory by count, in Redis by count and expiry (P7).
//!
//! Every call is one round trip per thousand users. If all data is lost, the services only work more for a short time: counters
//! start new epochs, gateways renew their routes with the next heartbeats, and members are read from the store.
//!
//! - [`fences`]: the states of a fence, for both implementations.
//! - [`memory`]: the implementation for a single process.
//! - [`redis`]: the implementation over Redis, with its scripts and connections.

mod error;
pub mod fences;
pub mod memory;
mod metrics;
#[cfg(feature = "redis")]
pub mod redis;

pub use error::Error;
pub use fences::{Doubt, FenceState, Logged};
pub use memory::MemoryCache;
pub use metrics::describe_metrics;
#[cfg(feature = "redis")]
pub use redis::RedisCache;

use abi::v1::{Member, Members, ReceiverSeq};
use std::{pin::Pin, sync::Arc, time::Duration};

/// Time to live of a group's members. It is the longest time that a lost update can go unnoticed.
pub const MEMBERS_TTL: Duration = Duration::from_secs(60);
/// How long a fence stands unless it is released. A removal must be decided within this time, also during an outage of the store.
pub const FENCE_TTL: Duration = Duration::from_secs(24 * 3600);
/// The index of changes keeps at least this many subjects per user, those that changed last. With more changed subjects a full
/// list is as cheap.
pub const MAX_SUBJECTS: usize = 100;
/// Most watchers of a user's presence. Each change of the presence is sent to all of them.
pub const MAX_WATCHERS: usize = 1_000;
/// Longest presence text, in characters. Callers check it.
pub const MAX_PRESENCE_TEXT: usize = 128;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// The volatile state. Callers may repeat every call.
#[async_trait::async_trait]
pub trait Cache: Counters + Routes + Presences + Groups {
    /// Checks that the cache responds. Readiness probes use it.
    async fn ping(&self) -> Result<()>;
}

/// Receiver seqs and the index of changes.
#[async_trait::async_trait]
pub trait Counters: Send + Sync + 'static {
    /// Increments the receiver seqs and records the changed subjects. Both happen atomically for each user. Returns the new values in the
    /// same order. A missing counter starts a new epoch.
    async fn increment(&self, app: &str, increments: &[Increment<'_>]) -> Result<Vec<ReceiverSeq>>;

    /// The subjects that changed for a user after `since`. A missing counter starts a new epoch.
    async fn changes(&self, app: &str, user: &str, since: ReceiverSeq) -> Result<Changes>;
}

/// An increment of a user's receiver seq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Increment<'a> {
    /// User id.
    pub user: &'a str,
    /// The number of changes. 0 reads the receiver seq.
    pub by: u32,
    /// The changed subjects: conversation ids, or other names that begin with `~`. Without a subject, the next devices that ask for
    /// changes have to make a full list.
    pub subjects: Vec<&'a str>,
}

/// The changes of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The receiver seq up to which `subjects` is complete.
    pub now: ReceiverSeq,
    /// The distinct subjects that changed, last change first. `None`: not known, because the epoch differs or the index does
    /// not reach back far enough.
    pub subjects: Option<Vec<String>>,
}

/// Routes: the gateways that hold the connections of each user.
#[async_trait::async_trait]
pub trait Routes: Send + Sync + 'static {
    /// Registers the route of a new connection: it is at `gateway`, with a lease of `ttl`. If the connection has a route
    /// already, the call renews it.
    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        ttl: Duration,
    ) -> Result<Connected>;

    /// Renews the lease of a connection for `ttl`, and restores a lost route. `order` is the value that [`Self::connect`]
    /// returned. Returns the user's receiver seq.
    async fn renew(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        order: u64,
        ttl: Duration,
    ) -> Result<ReceiverSeq>;

    /// Removes the route of one connection. Other connections of the same user stay, also on the same gateway. Returns whether
    /// the user is offline now.
    async fn disconnect(&self, app: &str, user: &str, connection: &str) -> Result<bool>;

    /// The gateways with connections of each user, in the order of the users. A user's gateways are distinct.
    async fn routes(&self, app: &str, users: &[&str]) -> Result<Vec<Vec<Arc<str>>>>;
}

/// A registered connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The user's receiver seq.
    pub receiver_seq: ReceiverSeq,
    /// Orders the connections of an application, whatever the clocks of their gateways show: a later connection has a larger
    /// value. It is never 0.
    pub order: u64,
    /// Whether the user had no other connection: the user is online only since this call.
    pub was_offline: bool,
    /// Whether the user's presence may be watched. False: nobody watches it.
    pub is_watched: bool,
}

/// Presence of users, and its watchers.
#[async_trait::async_trait]
pub trait Presences: Send + Sync + 'static {
    /// The presence of each user, in the order of the users.
    async fn presence(&self, app: &str, users: &[&str]) -> Result<Vec<Presence>>;

    /// Sets the text that others see while the user is online, of at most [`MAX_PRESENCE_TEXT`] characters. It ends with the
    /// user's last connection. An empty text removes it.
    async fn set_presence_text(&self, app: &str, user: &str, text: &str) -> Result<()>;

    /// Makes a user watch the presence of `users` for `ttl`. Repeat the call to renew. A user with [`MAX_WATCHERS`] watchers gets
    /// no further one.
    async fn watch(&self, app: &str, watcher: &str, users: &[&str], ttl: Duration) -> Result<()>;

    /// The users who watch a user, in no order.
    async fn watchers(&self, app: &str, user: &str) -> Result<Vec<String>>;
}

/// The presence of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// Whether the user has a connection.
    pub online: bool,
    /// When the last connection ended, milliseconds since 1970-01-01 UTC. `None`: the user is online, or was not for 90 days.
    pub last_seen_ms: Option<i64>,
    /// The user's own text. Empty while the user is offline.
    pub text: String,
}

/// Members of groups, and fences that removals set.
#[async_trait::async_trait]
pub trait Groups: Send + Sync + 'static {
    /// The members of a conversation, if they are cached.
    async fn members(&self, app: &str, conversation: &str) -> Result<Option<Arc<Members>>>;

    /// One member of a conversation, if its members are cached. The cost does not depend on the number of members.
    async fn member(&self, app: &str, conversation: &str, user: &str) -> Result<Option<Membership>>;

    /// Caches the members of a conversation for `ttl`, unless a newer version is cached.
    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        ttl: Duration,
    ) -> Result<()>;

    /// Marks users for `ttl` as being removed from a conversation, by the removal with this id. A gateway sets the fence before it
    /// logs the removal. A gateway that has logged a message of a user without a fence knows that the message comes before the
    /// removal. With a fence the order is open: the gateway has to await the store's decision. A user has one fence per removal.
    async fn fence(
        &self,
        app: &str,
        conversation: &str,
        users: &[&str],
        removal: &str,
        ttl: Duration,
    ) -> Result<()>;

    /// Lets the fences that a removal has set end after `ttl`. The removal is decided. Fences of other removals stay.
    async fn release(
        &self,
        app: &str,
        conversation: &str,
        users: &[&str],
        removal: &str,
        ttl: Duration,
    ) -> Result<()>;

    /// Whether a message of a user may be behind the user's removal from the conversation.
    async fn fence_state(
        &self,
        app: &str,
        conversation: &str,
        user: &str,
        message: Logged,
    ) -> Result<FenceState>;

    /// The answer of [`Self::fence_state`] if this process has it. A caller then needs no task that waits. `None`: another process has
    /// the fences.
    fn local_fence_state(
        &self,
        _app: &str,
        _conversation: &str,
        _user: &str,
        _message: Logged,
    ) -> Option<FenceState> {
        None
    }

    /// Records that the store has saved a message, and this copy of it: no earlier copy is in the log. So it has decided every removal
    /// that is ahead of the message. Call it only for a message that [`Doubt::is_before`]. The second of two such messages of a
    /// partition, sent one after the other, ends the doubt. Has no effect once the cache has begun another run.
    async fn message_saved(&self, app: &str, message: Logged, doubt: Doubt) -> Result<()>;
}

/// Whether a user is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The version of the members.
    pub version: u64,
    /// The member. `None`: the user is none.
    pub member: Option<Member>,
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

/// A random new epoch. It is never 0, because devices send 0 while they have no epoch. It has 30 bits, so that it fits into a
/// counter of Redis together with a seq.
fn new_epoch() -> u32 {
    (rand::random::<u32>() >> 2).max(1)
}
