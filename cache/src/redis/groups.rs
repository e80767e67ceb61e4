//! Members of groups and fences.
//!
//! The members of a group are one hash. It has them twice: encoded as a whole, because a hash of all members takes twenty times as
//! long to read, and one field per member, because a permission check needs only one.

use super::{MAX_USERS, RedisCache, connections::Request, millis, run::Run};
use crate::{Doubt, FenceState, Groups, Logged, Membership, Result};
use abi::v1::{Member, Members};
use deadpool_redis::redis::{Pipeline, Script};
use prost::Message as _;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// A complete partition is forgotten when no other one has become complete for this long. The store then decides again for a time.
const COMPLETE_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

static PUT_MEMBERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("put_members.lua")));

static RELEASE_FENCES: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("release_fences.lua")));

/// The field of a member, `ROLE VISIBLE_FROM`.
fn encode_member(member: &Member) -> String {
    format!("{} {}", member.role, member.visible_from)
}

fn decode_member(user: &str, field: &str) -> Option<Member> {
    let (role, visible_from) = field.split_once(' ')?;
    let (role, visible_from) = (role.parse().ok()?, visible_from.parse().ok()?);
    Some(Member { user: user.into(), role, visible_from })
}

#[async_trait::async_trait]
impl Groups for RedisCache {
    async fn members(&self, app: &str, conversation: &str) -> Result<Option<Arc<Members>>> {
        let commands = |run: &Run| {
            let mut commands = Pipeline::with_capacity(1);
            commands
                .cmd("HGET")
                .arg([&self.key(app, "m", conversation), ":", &run.id].concat())
                .arg("members");
            commands
        };
        let [bytes]: [Option<Vec<u8>>; 1] = self.call("members", Request::Commands(&commands)).await?;
        // Treat undecodable members as missing: callers then read them from the store.
        let members = bytes.and_then(|bytes| Members::decode(bytes.as_slice()).ok());
        crate::metrics::members(members.is_some());
        Ok(members.map(Arc::new))
    }

    async fn member(&self, app: &str, conversation: &str, user: &str) -> Result<Option<Membership>> {
        let commands = |run: &Run| {
            let key = [&self.key(app, "m", conversation), ":", &run.id].concat();
            let mut commands = Pipeline::with_capacity(1);
            commands.cmd("HMGET").arg(key).arg("version").arg(["u:", user].concat());
            commands
        };
        let [(version, field)]: [(Option<u64>, Option<String>); 1] =
            self.call("member", Request::Commands(&commands)).await?;
        let member = field.and_then(|field| decode_member(user, &field));
        crate::metrics::members(version.is_some());
        Ok(version.map(|version| Membership { version, member }))
    }

    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        ttl: Duration,
    ) -> Result<()> {
        let mut script = PUT_MEMBERS.prepare_invoke();
        script.key(self.key(app, "m", conversation));
        script.arg(millis(ttl)).arg(members.version).arg(members.encode_to_vec()).arg(members.members.len());
        for member in &members.members {
            script.arg(&member.user).arg(encode_member(member));
        }
        self.call("put_members", Request::Script(script)).await
    }

    async fn fence(
        &self,
        app: &str,
        conversation: &str,
        users: &[&str],
        removal: &str,
        ttl: Duration,
    ) -> Result<()> {
        for users in users.chunks(MAX_USERS) {
            let commands = |_: &Run| {
                let mut commands = Pipeline::with_capacity(3 * users.len());
                commands.atomic();
                for user in users {
                    let key = self.key(app, "f", &[conversation, ":", user].concat());
                    commands.cmd("SADD").arg(&key).arg(removal).ignore();
                    // A fence that was released.
                    commands.cmd("SREM").arg(&key).arg("").ignore();
                    commands.cmd("PEXPIRE").arg(&key).arg(millis(ttl)).ignore();
                }
                commands
            };
            let () = self.call("fence", Request::Commands(&commands)).await?;
        }
        Ok(())
    }

    async fn release(
        &self,
        app: &str,
        conversation: &str,
        users: &[&str],
        removal: &str,
        ttl: Duration,
    ) -> Result<()> {
        for users in users.chunks(MAX_USERS) {
            let mut script = RELEASE_FENCES.prepare_invoke();
            script.key(self.key(app, "f", conversation));
            script.arg(removal).arg(millis(ttl)).arg(users.len()).arg(users);
            let () = self.call("release", Request::Script(script)).await?;
        }
        Ok(())
    }

    async fn fence_state(
        &self,
        app: &str,
        conversation: &str,
        user: &str,
        message: Logged,
    ) -> Result<FenceState> {
        let partition = message.partition;
        let commands = |run: &Run| {
            let mut commands = Pipeline::with_capacity(2);
            commands.cmd("EXISTS").arg(self.key(app, "f", &[conversation, ":", user].concat()));
            if !run.with_partitions(app, |partitions| partitions.are_complete(partition)) {
                commands.cmd("SISMEMBER").arg(self.key(app, "c", &run.id)).arg(partition);
            }
            commands
        };
        let mut request = Request::Commands(&commands);
        let (answers, run): (Vec<bool>, _) = self.connections.call("fence_state", &mut request).await?;
        if answers.first() == Some(&true) {
            return Ok(FenceState::Fenced);
        }
        let is_covered = run.with_partitions(app, |partitions| {
            if answers.get(1) == Some(&true) {
                partitions.complete(partition);
            }
            partitions.cover(message)
        });
        Ok(if is_covered { FenceState::Clear } else { FenceState::Unknown(run.doubt()) })
    }

    async fn message_saved(&self, app: &str, message: Logged, doubt: Doubt) -> Result<()> {
        let Some(run) = self.connections.last_run().filter(|run| run.saved(app, message, doubt)) else {
            return Ok(());
        };
        let commands = |_: &Run| {
            let key = self.key(app, "c", &run.id);
            let mut commands = Pipeline::with_capacity(2);
            commands.cmd("SADD").arg(&key).arg(message.partition).ignore();
            commands.cmd("EXPIRE").arg(&key).arg(COMPLETE_TTL.as_secs()).ignore();
            commands
        };
        self.call("message_saved", Request::Commands(&commands)).await
    }
}
