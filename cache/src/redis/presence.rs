//! Presence and its watchers.

use super::{Lease, MAX_USERS, RedisCache, USER_TTL, connections::Request, millis, run::Run, time_millis};
use crate::{MAX_WATCHERS, Presence, Presences, Result};
use deadpool_redis::redis::{Pipeline, Script};
use std::{sync::LazyLock, time::Duration};

static WATCH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("watch.lua")));
static WATCHERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("watchers.lua")));

/// The values of an answer to `HVALS`, `HMGET` or `TIME`.
type Values = Vec<Option<String>>;

/// The presence by a user's leases and by what was stored: time last seen, text.
fn presence(leases: &Values, stored: &Values, now: u64) -> Presence {
    let stored = |index: usize| stored.get(index).cloned().flatten();
    let expiries: Vec<u64> =
        leases.iter().flatten().filter_map(|lease| Lease::parse(lease)).map(|lease| lease.expires).collect();
    if expiries.iter().any(|expires| *expires > now) {
        return Presence { online: true, last_seen_ms: None, text: stored(1).unwrap_or_default() };
    }
    let seen = stored(0).and_then(|seen| seen.parse().ok());
    let last_seen_ms = expiries.into_iter().chain(seen).max().and_then(|ms: u64| i64::try_from(ms).ok());
    Presence { online: false, last_seen_ms, text: String::new() }
}

#[async_trait::async_trait]
impl Presences for RedisCache {
    async fn presence(&self, app: &str, users: &[&str]) -> Result<Vec<Presence>> {
        let mut presences = Vec::with_capacity(users.len());
        for users in users.chunks(MAX_USERS) {
            let commands = |_: &Run| {
                let mut commands = Pipeline::with_capacity(2 * users.len() + 1);
                for user in users {
                    commands.cmd("HVALS").arg(self.key(app, "r", user));
                    commands.cmd("HMGET").arg(self.key(app, "p", user)).arg("seen").arg("text");
                }
                commands.cmd("TIME");
                commands
            };
            let mut values: Vec<Values> = self.call("presence", Request::Commands(&commands)).await?;
            let now = time_millis(values.pop().unwrap_or_default().iter().flatten().map(String::as_str));
            presences.extend(
                values.as_chunks::<2>().0.iter().map(|[leases, stored]| presence(leases, stored, now)),
            );
        }
        Ok(presences)
    }

    async fn set_presence_text(&self, app: &str, user: &str, text: &str) -> Result<()> {
        let commands = |_: &Run| {
            let mut commands = Pipeline::with_capacity(2);
            commands.cmd("HSET").arg(self.key(app, "p", user)).arg("text").arg(text).ignore();
            commands.cmd("PEXPIRE").arg(self.key(app, "p", user)).arg(millis(USER_TTL)).ignore();
            commands.atomic();
            commands
        };
        self.call("set_presence_text", Request::Commands(&commands)).await
    }

    async fn watch(&self, app: &str, watcher: &str, users: &[&str], ttl: Duration) -> Result<()> {
        for users in users.chunks(MAX_USERS) {
            let mut script = WATCH.prepare_invoke();
            for user in users {
                script.key(self.key(app, "w", user));
            }
            script.arg(watcher).arg(millis(ttl)).arg(MAX_WATCHERS);
            let () = self.call("watch", Request::Script(script)).await?;
        }
        Ok(())
    }

    async fn watchers(&self, app: &str, user: &str) -> Result<Vec<String>> {
        let mut script = WATCHERS.prepare_invoke();
        script.key(self.key(app, "w", user));
        self.call("watchers", Request::Script(script)).await
    }
}
