//! The cache of a single process.
//!
//! Bounded by forgetting what was not touched for longest: a forgotten counter begins a new epoch, a forgotten
//! route comes back with the next heartbeat, forgotten members are asked of the store.

mod generations;

use crate::{Cache, Result, new_epoch};
use abi::v1::{Members, ReceiverSeq};
use generations::Generations;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Users whose counters and routes are kept, about 150 bytes each.
const MAX_USERS: usize = 1_000_000;
/// Members that are kept over all groups, about 60 bytes each.
const MAX_MEMBERS: usize = 500_000;

/// Counters, routes and members in the memory of this process.
#[derive(Debug)]
pub struct MemoryCache {
    // Held for some microseconds a batch and never across an await: one lock is cheaper than many.
    apps: Mutex<HashMap<Box<str>, App>>,
    max_users: usize,
    max_members: usize,
}

#[derive(Debug)]
struct App {
    users: Generations<User>,
    members: Generations<Group>,
}

#[derive(Debug)]
struct User {
    epoch: u32,
    seq: u64,
    // Empty for users who are offline: no allocation.
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
    /// A cache that remembers at most so many users, and so many members over all groups, of each application.
    pub fn with_limits(max_users: usize, max_members: usize) -> Self {
        Self { apps: Mutex::default(), max_users, max_members }
    }

    fn apps(&self) -> MutexGuard<'_, HashMap<Box<str>, App>> {
        // Every change below is complete before anything that could panic.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` on the state of an application, made when missing.
    fn with<T>(&self, app: &str, act: impl FnOnce(&mut App) -> T) -> T {
        let mut apps = self.apps();
        if let Some(app) = apps.get_mut(app) {
            return act(app);
        }
        act(apps.entry(app.into()).or_insert_with(|| App {
            users: Generations::new(self.max_users),
            members: Generations::new(self.max_members),
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

    fn connect(&mut self, connection: &str, gateway: &str, life: Duration) {
        let now = Instant::now();
        self.routes.retain(|route| route.expires > now || &*route.connection == connection);
        let expires = now + life;
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
    async fn raise(&self, app: &str, users: &[(&str, u32)]) -> Result<Vec<ReceiverSeq>> {
        Ok(self.with(app, |app| {
            let raise = |(user, by): &(&str, u32)| {
                let user = app.user(user);
                user.seq += u64::from(*by);
                user.receiver_seq()
            };
            users.iter().map(raise).collect()
        }))
    }

    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        life: Duration,
    ) -> Result<ReceiverSeq> {
        Ok(self.with(app, |app| {
            let user = app.user(user);
            user.connect(connection, gateway, life);
            user.receiver_seq()
        }))
    }

    async fn disconnect(&self, app: &str, user: &str, connection: &str) -> Result<()> {
        self.with(app, |app| {
            if let Some(user) = app.users.get_mut(user) {
                user.routes.retain(|route| &*route.connection != connection);
                user.routes.shrink_to_fit();
            }
        });
        Ok(())
    }

    async fn routes(&self, app: &str, users: &[&str]) -> Result<Vec<Vec<Arc<str>>>> {
        let now = Instant::now();
        Ok(self.with(app, |app| {
            let gateways =
                |user: &&str| app.users.get_mut(user).map_or_else(Vec::new, |user| user.gateways(now));
            users.iter().map(gateways).collect()
        }))
    }

    async fn members(&self, app: &str, conversation: &str) -> Result<Option<Arc<Members>>> {
        let now = Instant::now();
        let members = self.with(app, |app| {
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
        life: Duration,
    ) -> Result<()> {
        let now = Instant::now();
        let group = Group { members: Arc::new(members.clone()), expires: now + life };
        self.with(app, |app| {
            let known = app.members.get_mut(conversation).filter(|group| group.expires > now);
            if known.is_none_or(|known| known.members.version <= members.version) {
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
    async fn p7_users_who_are_not_seen_are_forgotten_and_get_a_new_epoch() {
        let cache = MemoryCache::with_limits(100, 100);
        let current = async |user| cache.raise("app", &[(user, 0)]).await.unwrap()[0];
        let first = current("first").await;
        let kept = current("kept").await;
        for number in 0..200 {
            cache.raise("app", &[(&format!("user{number}"), 1)]).await.unwrap();
            cache.connect("app", "kept", "c", "gateway", Duration::from_secs(60)).await.unwrap();
        }
        assert_eq!(current("kept").await, kept);
        assert_eq!(&*cache.routes("app", &["kept"]).await.unwrap()[0][0], "gateway");
        assert_ne!(current("first").await.epoch, first.epoch);
        let users = cache.with("app", |app| app.users.len());
        assert!(users <= 101, "{users} users are kept");
    }
}
