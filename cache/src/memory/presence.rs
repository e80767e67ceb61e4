//! Presence and its watchers.

use super::{MemoryCache, generational_map::Weigh, user::User};
use crate::{MAX_WATCHERS, Presence, Presences, Result};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// The watchers of a user, with the end of their leases.
#[derive(Debug, Default)]
pub(super) struct Watchers(HashMap<Box<str>, Instant>);

impl Weigh for Watchers {
    fn weight(&self) -> usize {
        self.0.len().max(1)
    }
}

impl Watchers {
    fn watch(&mut self, watcher: &str, now: Instant, ttl: Duration) {
        if let Some(expires) = self.0.get_mut(watcher) {
            *expires = now + ttl;
            return;
        }
        if self.0.len() >= MAX_WATCHERS {
            self.0.retain(|_, expires| *expires > now);
        }
        if self.0.len() < MAX_WATCHERS {
            self.0.insert(watcher.into(), now + ttl);
        }
    }
}

#[async_trait::async_trait]
impl Presences for MemoryCache {
    async fn presence(&self, app: &str, users: &[&str]) -> Result<Vec<Presence>> {
        let now = Instant::now();
        Ok(self.with_app(app, |app| {
            let presence = |user: &&str| {
                app.users.get_mut(user).map_or_else(Presence::default, |user| user.presence(now))
            };
            users.iter().map(presence).collect()
        }))
    }

    async fn set_presence_text(&self, app: &str, user: &str, text: &str) -> Result<()> {
        self.with_app(app, |app| app.users.update(user, User::new, |user| user.text = text.into()));
        Ok(())
    }

    async fn watch(&self, app: &str, watcher: &str, users: &[&str], ttl: Duration) -> Result<()> {
        let now = Instant::now();
        self.with_app(app, |app| {
            for user in users {
                app.watchers.update(user, Watchers::default, |watchers| watchers.watch(watcher, now, ttl));
            }
        });
        Ok(())
    }

    async fn watchers(&self, app: &str, user: &str) -> Result<Vec<String>> {
        let now = Instant::now();
        Ok(self.with_app(app, |app| {
            let watchers = app.watchers.get_mut(user).into_iter().flat_map(|watchers| &watchers.0);
            watchers.filter(|(_, expires)| **expires > now).map(|(watcher, _)| watcher.to_string()).collect()
        }))
    }
}
