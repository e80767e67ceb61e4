//! Members of groups and fences.
//!
//! The members of a group are one hash. It has them twice: encoded as a whole, because a hash of all members takes twenty times as
//! long to read, and one field per member, because a permission check needs only one.

use super::{RedisCache, connections::Request, millis};
use crate::{Groups, Membership, Result};
use abi::v1::{Member, Members};
use deadpool_redis::redis::{Cmd, Pipeline, Script};
use prost::Message as _;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// A new run of the server may lack fences. A removal that was logged before it is usually decided after this time.
const DECISION_TIME: Duration = Duration::from_secs(60);

static PUT_MEMBERS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("put_members.lua")));

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
        let commands = |run: &str| {
            let mut commands = Pipeline::with_capacity(1);
            commands.cmd("HGET").arg([&self.key(app, "m", conversation), ":", run].concat()).arg("members");
            commands
        };
        let [bytes]: [Option<Vec<u8>>; 1] = self.call("members", Request::Commands(&commands)).await?;
        // Treat undecodable members as missing: callers then read them from the store.
        let members = bytes.and_then(|bytes| Members::decode(bytes.as_slice()).ok());
        crate::metrics::members(members.is_some());
        Ok(members.map(Arc::new))
    }

    async fn member(&self, app: &str, conversation: &str, user: &str) -> Result<Option<Membership>> {
        let commands = |run: &str| {
            let key = [&self.key(app, "m", conversation), ":", run].concat();
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

    async fn fence(&self, app: &str, conversation: &str, users: &[&str], ttl: Duration) -> Result<()> {
        let commands = |_: &str| {
            let mut commands = Pipeline::with_capacity(users.len());
            for user in users {
                let key = self.key(app, "f", &[conversation, ":", user].concat());
                commands.cmd("SET").arg(key).arg("").arg("PX").arg(millis(ttl)).ignore();
            }
            commands
        };
        self.call("fence", Request::Commands(&commands)).await
    }

    async fn is_fenced(&self, app: &str, conversation: &str, user: &str) -> Result<bool> {
        let mut command = Cmd::new();
        command.arg("EXISTS").arg(self.key(app, "f", &[conversation, ":", user].concat()));
        let is_fenced: bool = self.call("is_fenced", Request::Command(command)).await?;
        Ok(is_fenced || self.connections.met_new_run_within(DECISION_TIME))
    }
}
