//! A cache that hangs in one call.

use abi::v1::{Members, ReceiverSeq};
use cache::{
    Cache, Changes, Connected, Counters, Doubt, FenceState, Groups, Increment, Logged, Membership,
    MemoryCache, Presence, Presences, Routes,
};
use std::{sync::Arc, time::Duration};

/// A cache that never answers the removal of a route.
#[derive(Default)]
pub(super) struct HangingCache(MemoryCache);

#[tonic::async_trait]
impl Counters for HangingCache {
    async fn increment(&self, app: &str, increments: &[Increment<'_>]) -> cache::Result<Vec<ReceiverSeq>> {
        self.0.increment(app, increments).await
    }

    async fn changes(&self, app: &str, user: &str, since: ReceiverSeq) -> cache::Result<Changes> {
        self.0.changes(app, user, since).await
    }
}

#[tonic::async_trait]
impl Routes for HangingCache {
    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        ttl: Duration,
    ) -> cache::Result<Connected> {
        self.0.connect(app, user, connection, gateway, ttl).await
    }

    async fn renew(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        order: u64,
        ttl: Duration,
    ) -> cache::Result<ReceiverSeq> {
        self.0.renew(app, user, connection, gateway, order, ttl).await
    }

    async fn disconnect(&self, _: &str, _: &str, _: &str) -> cache::Result<bool> {
        std::future::pending().await
    }

    async fn routes(&self, app: &str, users: &[&str]) -> cache::Result<Vec<Vec<Arc<str>>>> {
        self.0.routes(app, users).await
    }
}

#[tonic::async_trait]
impl Presences for HangingCache {
    async fn presence(&self, app: &str, users: &[&str]) -> cache::Result<Vec<Presence>> {
        self.0.presence(app, users).await
    }

    async fn set_presence_text(&self, app: &str, user: &str, text: &str) -> cache::Result<()> {
        self.0.set_presence_text(app, user, text).await
    }

    async fn watch(&self, app: &str, watcher: &str, users: &[&str], ttl: Duration) -> cache::Result<()> {
        self.0.watch(app, watcher, users, ttl).await
    }

    async fn watchers(&self, app: &str, user: &str) -> cache::Result<Vec<String>> {
        self.0.watchers(app, user).await
    }
}

#[tonic::async_trait]
impl Groups for HangingCache {
    async fn members(&self, app: &str, conversation: &str) -> cache::Result<Option<Arc<Members>>> {
        self.0.members(app, conversation).await
    }

    async fn member(&self, app: &str, conversation: &str, user: &str) -> cache::Result<Option<Membership>> {
        self.0.member(app, conversation, user).await
    }

    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        ttl: Duration,
    ) -> cache::Result<()> {
        self.0.put_members(app, conversation, members, ttl).await
    }

    async fn fence(
        &self,
        app: &str,
        conversation: &str,
        users: &[&str],
        removal: &str,
        ttl: Duration,
    ) -> cache::Result<()> {
        self.0.fence(app, conversation, users, removal, ttl).await
    }

    async fn release(
        &self,
        app: &str,
        conversation: &str,
        users: &[&str],
        removal: &str,
        ttl: Duration,
    ) -> cache::Result<()> {
        self.0.release(app, conversation, users, removal, ttl).await
    }

    async fn fence_state(
        &self,
        app: &str,
        conversation: &str,
        user: &str,
        message: Logged,
    ) -> cache::Result<FenceState> {
        self.0.fence_state(app, conversation, user, message).await
    }

    async fn message_saved(&self, app: &str, message: Logged, doubt: Doubt) -> cache::Result<()> {
        self.0.message_saved(app, message, doubt).await
    }
}

#[tonic::async_trait]
impl Cache for HangingCache {
    async fn ping(&self) -> cache::Result<()> {
        self.0.ping().await
    }
}
