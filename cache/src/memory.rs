//! The cache of a single process.
//!
//! Its size is bounded by evicting the least recently used entries. An evicted user starts a new epoch, and the route returns
//! with the next heartbeat. Evicted members are read from the store. After the eviction of a fence, the store decides about messages to
//! groups until the fences are complete again.
//!
//! - `counters`, `routes`, `presence`, `groups`: the parts of the trait. `fences`: the fences of groups.
//! - `user`, `change_index`: the state of a user.
//! - `generational_map`: the map that evicts.

mod change_index;
mod counters;
mod fences;
mod generational_map;
mod groups;
mod presence;
mod routes;
mod user;

use crate::{Cache, Result};
use fences::Fences;
use generational_map::{GenerationalMap, Weigh};
use groups::Group;
use presence::Watchers;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use user::User;

/// Cached users, about 350 bytes each, and half as many if 8 subjects changed for each.
const MAX_USERS: usize = 1_000_000;
/// Cached members of all groups together, about 60 bytes each.
const MAX_MEMBERS: usize = 500_000;
/// Watchers of all users together, about 60 bytes each.
const MAX_WATCHES: usize = 500_000;
/// Fences of all groups together, about 100 bytes each.
const MAX_FENCES: usize = 100_000;

/// The volatile state in the memory of this process.
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
    /// The order of the newest connection.
    order: u64,
    watchers: GenerationalMap<Watchers>,
    groups: GenerationalMap<Group>,
    fences: Fences,
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::with_limits(MAX_USERS, MAX_MEMBERS)
    }
}

impl MemoryCache {
    /// A cache with at most `max_users` users and `max_members` members of all groups, per application. Users with many changed
    /// subjects count several times.
    pub fn with_limits(max_users: usize, max_members: usize) -> Self {
        Self { apps: Mutex::default(), max_users, max_members }
    }

    fn apps(&self) -> MutexGuard<'_, HashMap<Box<str>, App>> {
        // A poisoned lock is safe to use: no change can panic halfway.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `access` with the state of an application. Creates the state if it is missing.
    fn with_app<T>(&self, app: &str, access: impl FnOnce(&mut App) -> T) -> T {
        let mut apps = self.apps();
        if let Some(app) = apps.get_mut(app) {
            return access(app);
        }
        access(apps.entry(app.into()).or_insert_with(|| App {
            users: GenerationalMap::new(self.max_users.saturating_mul(User::new().weight())),
            order: 0,
            watchers: GenerationalMap::new(MAX_WATCHES),
            groups: GenerationalMap::new(self.max_members),
            fences: Fences::new(MAX_FENCES),
        }))
    }
}

#[async_trait::async_trait]
impl Cache for MemoryCache {
    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
