//! The cache of a single process.
//!
//! Its size is bounded by evicting the least recently used entries. An evicted counter starts a new epoch, an evicted
//! route returns with the next heartbeat, and evicted members are read from the store.

mod generational_map;

use crate::{Cache, Result, new_epoch};
use abi::v1::{Members, ReceiverSeq};
use generational_map::GenerationalMap;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Cached users (counter and routes), about 150 bytes each.
const MAX_USERS: usize = 1_000_000;
/// Cached members of all groups together, about 60 bytes each.
const MAX_MEMBERS: usize = 500_000;

/// Counters, routes and members in the memory of this process.
#[derive(Debug)]
pub struct MemoryCache {
    // A batch holds the lock for a few microseconds and never across an await. More locks would cost more than they save.
    apps: Mutex<HashMap<Box<str>, App>>,
    max_users: usize,
    max_members: usize,
}

#[derive(Debug)]
struct App {
    users: GenerationalMap<User>,
    members: GenerationalMap<Group>,
}

#[derive(Debug)]
struct User {
    epoch: u32,
    seq: u64,
    // Empty for offline users, and then without an allocation.
    routes: Vec<Route>,
}

#[derive(Debug)]
struct Route {
    connection: Box<str>,
    gateway: Arc<str>,
    expires: Instant,
}

#[derive(Debug)]
struct Group {
    members: Arc<Members>,
    expires: Instant,
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::with_limits(MAX_USERS, MAX_MEMBERS)
    }
}

impl MemoryCache {
    /// A cache with at most `max_users` users and `max_members` members of all groups, per application.
    pub fn with_limits(max_users: usize, max_members: usize) -> Self {
        Self { apps: Mutex::default(), max_users, max_members }
    }

    fn apps(&self) -> MutexGuard<'_, HashMap<Box<str>, App>> {
        // A poisoned lock is safe to use: no change below can panic halfway.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `access` with the state of an application. Creates the state if it is missing.
    fn with_app<T>(&self, app: &str, access: impl FnOnce(&mut App) -> T) -> T {
        let mut apps = self.apps();
        if let Some(app) = apps.get_mut(app) {
            return access(app);
        }
        access(apps.entry(app.into()).or_insert_with(|| App {
            users: GenerationalMap::new(self.max_users),
            members: GenerationalMap::new(self.max_members),
        }))
    }
}

impl App {
    fn user(&mut self, user: &str) -> &mut User {
        self.users.get_or_insert_with(user, || User { epoch: new_epoch(), seq: 0, routes: Vec::new() })
    }
}

impl User {
    fn receiver_seq(&self) -> ReceiverSeq {
        ReceiverSeq { epoch: self.epoch, seq: self.seq }
    }

    fn connect(&mut self, connection: &str, gateway: &str, ttl: Duration) {
        let now = Instant::now();
        self.routes.retain(|route| route.expires > now || &*route.connection == connection);
        let expires = now + ttl;
        match self.routes.iter_mut().find(|route| &*route.connection == connection) {
            Some(route) => {
                route.expires = expires;
                if &*route.gateway != gateway {
                    route.gateway = gateway.into();
                }
            }
            None => {
                self.routes.push(Route { connection: connection.into(), gateway: gateway.into(), expires })
            }
        }
    }

    fn gateways(&self, now: Instant) -> Vec<Arc<str>> {
        let mut gateways: Vec<Arc<str>> = Vec::new();
        for route in self.routes.iter().filter(|route| route.expires > now) {
            if !gateways.contains(&route.gateway) {
                gateways.push(Arc::clone(&route.gateway));
            }
        }
        gateways
    }
}

#[async_trait::async_trait]
impl Cache for MemoryCache {
    async fn increment(&self, app: &str, users: &[(&str, u32)]) -> Result<Vec<ReceiverSeq>> {
        Ok(self.with_app(app, |app| {
            let increment = |(user, by): &(&str, u32)| {
                let user = app.user(user);
                user.seq += u64::from(*by);
                user.receiver_seq()
            };
            users.iter().map(increment).collect()
        }))
    }

    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        ttl: Duration,
    ) -> Result<ReceiverSeq> {
        Ok(self.with_app(app, |app| {
            let user = app.user(user);
            user.connect(connection, gateway, ttl);
            user.receiver_seq()
        }))
    }

    async fn disconnect(&self, app: &str, user: &str, connection: &str) -> Result<()> {
        self.with_app(app, |app| {
            if let Some(user) = app.users.get_mut(user) {
                user.routes.retain(|route| &*route.connection != connection);
                user.routes.shrink_to_fit();
            }
        });
        Ok(())
    }

    async fn routes(&self, app: &str, users: &[&str]) -> Result<Vec<Vec<Arc<str>>>> {
        let now = Instant::now();
        Ok(self.with_app(app, |app| {
            let gateways =
                |user: &&str| app.users.get_mut(user).map_or_else(Vec::new, |user| user.gateways(now));
            users.iter().map(gateways).collect()
        }))
    }

    async fn members(&self, app: &str, conversation: &str) -> Result<Option<Arc<Members>>> {
        let now = Instant::now();
        let members = self.with_app(app, |app| {
            let group = app.members.get_mut(conversation).filter(|group| group.expires > now)?;
            Some(Arc::clone(&group.members))
        });
        crate::metrics::members(members.is_some());
        Ok(members)
    }

    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        ttl: Duration,
    ) -> Result<()> {
        let now = Instant::now();
        let group = Group { members: Arc::new(members.clone()), expires: now + ttl };
        self.with_app(app, |app| {
            let cached = app.members.get_mut(conversation).filter(|group| group.expires > now);
            if cached.is_none_or(|cached| cached.members.version <= members.version) {
                app.members.insert(conversation, group, members.members.len().max(1));
            }
        });
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn p7_unused_users_are_evicted_and_get_a_new_epoch() {
        let cache = MemoryCache::with_limits(100, 100);
        let current = async |user| cache.increment("app", &[(user, 0)]).await.unwrap()[0];
        let first = current("first").await;
        let active = current("active").await;
        for number in 0..200 {
            cache.increment("app", &[(&format!("user{number}"), 1)]).await.unwrap();
            cache.connect("app", "active", "c", "gateway", Duration::from_secs(60)).await.unwrap();
        }
        assert_eq!(current("active").await, active);
        assert_eq!(&*cache.routes("app", &["active"]).await.unwrap()[0][0], "gateway");
        assert_ne!(current("first").await.epoch, first.epoch);
        let users = cache.with_app("app", |app| app.users.len());
        assert!(users <= 101, "{users} users are cached");
    }
}
