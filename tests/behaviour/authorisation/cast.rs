//! The users of the matrix, their tokens, and the conversations that the operations act on.

use super::Caller;
use abi::v1::{Block, Send, client_frame::Frame};
use anyhow::{Context as _, Result, ensure};
use jsonwebtoken::{DecodingKey, EncodingKey, Validation};
use serde_json::{Value, json};
use tests::{
    device::{Device, Wire, content, new_id},
    system::unique,
    world::{Session, World},
};

/// The setting with the key that signs access tokens, so that a test can sign one of another application.
pub(crate) const SIGNING_KEY: &str = "auth.keys=tests=0123456789abcdef0123456789abcdef";

/// The users. The first three columns of the matrix after `nobody` are they; a caller with an invalid token is the member.
pub(super) struct Cast {
    pub(super) world: World,
    pub(super) stranger: Session,
    pub(super) member: Session,
    pub(super) owner: Session,
    pub(super) blocked: Session,
    pub(super) removed: Session,
    /// In each group, so that there is someone to remove.
    pub(super) guest: Session,
    /// In no group, so that there is someone to add.
    pub(super) newcomer: Session,
    /// A second log-in of the member, which was logged out.
    revoked: Session,
    /// Another device of the member, which writes the messages that the callers change.
    writer: Device,
    /// The message of the blocked user to the owner, from before the block.
    blocked_message: String,
}

impl Cast {
    pub(super) async fn new(world: World) -> Result<Self> {
        let owner = world.user("owner").await?;
        let blocked = world.user("blocked").await?;
        let member = world.user("member").await?;
        let revoked = world.log_in(&member, "lost").await?;
        let answer = world.http("DELETE", "/v1/sessions/current", Some(&revoked.access_token), None).await?;
        ensure!(answer.status == 204, "{answer:?}");
        let writer = world.connect(&world.log_in(&member, "writer").await?).await?;
        let mut device = world.connect(&blocked).await?;
        let talk = owner.conversation_with(&blocked);
        let blocked_message = device.send(&talk, &new_id(), "please").await?.message_id;
        device.entries(1).await?;
        let block = Block { user: blocked.user.clone(), blocked: true };
        world.connect(&owner).await?.done(Frame::Block(block)).await?;
        for gateway in world.system.gateways() {
            let (mut device, _) = Device::connect(gateway, Wire::Proto, &blocked.access_token, None).await?;
            tests::eventually("the block is in force", async || {
                let sent = device.send(&talk, &new_id(), "are you there?").await;
                ensure!(sent.is_err(), "a message was accepted");
                Ok(())
            })
            .await?;
        }
        Ok(Self {
            stranger: world.user("stranger").await?,
            removed: world.user("removed").await?,
            guest: world.user("guest").await?,
            newcomer: world.user("newcomer").await?,
            world,
            member,
            owner,
            blocked,
            revoked,
            writer,
            blocked_message,
        })
    }

    /// The user who is a caller, or whose token the caller misuses.
    pub(super) fn session(&self, caller: Caller) -> &Session {
        match caller {
            Caller::Stranger => &self.stranger,
            Caller::Owner => &self.owner,
            Caller::Blocked => &self.blocked,
            Caller::Removed => &self.removed,
            Caller::Revoked => &self.revoked,
            Caller::Nobody | Caller::Member | Caller::OtherApp | Caller::Expired => &self.member,
        }
    }

    /// The access token of a caller.
    pub(super) fn token(&self, caller: Caller) -> Result<Option<String>> {
        let token = &self.session(caller).access_token;
        Ok(match caller {
            Caller::Nobody => None,
            Caller::OtherApp => Some(signed_again(token, "app", json!("another"))?),
            Caller::Expired => Some(signed_again(token, "exp", json!(1))?),
            _ => Some(token.clone()),
        })
    }

    /// The refresh token of a caller.
    pub(super) fn refresh_token(&self, caller: Caller) -> String {
        let session = self.session(caller);
        match caller {
            Caller::Nobody => String::new(),
            // Of the right form, for a session that another application may have.
            Caller::OtherApp => format!("{}:{}:1:secret:seal", session.user, unique()),
            _ => session.refresh_token.clone(),
        }
    }

    /// A message for a caller to change.
    pub(super) async fn target(&mut self, stage: &Stage, caller: Caller) -> Result<String> {
        match caller {
            Caller::Removed => Ok(stage.removed_message.clone()),
            Caller::Blocked => Ok(self.blocked_message.clone()),
            _ => Ok(self.writer.send(&stage.group, &new_id(), "change me").await?.message_id),
        }
    }
}

/// The token with another claim, signed with the same key.
fn signed_again(token: &str, claim: &str, value: Value) -> Result<String> {
    let (_, secret) = SIGNING_KEY.rsplit_once('=').context("the setting has no secret")?;
    let key = DecodingKey::from_secret(secret.as_bytes());
    let mut claims = jsonwebtoken::decode::<Value>(token, &key, &Validation::default())?.claims;
    ensure!(claims[claim] != value, "{claims} has the other {claim} already");
    claims[claim] = value;
    let header = jsonwebtoken::decode_header(token)?;
    Ok(jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes()))?)
}

/// The conversations of one row.
pub(super) struct Stage {
    /// The group of the owner, the member and the guest, from which one user was removed.
    pub(super) group: String,
    /// A group of the blocked user and the guest.
    pub(super) group_of_blocked: String,
    /// A message that the removed user sent to the group.
    removed_message: String,
}

impl Stage {
    pub(super) async fn new(cast: &mut Cast) -> Result<Self> {
        let Cast { world, owner, member, removed, guest, blocked, .. } = &*cast;
        let group = world.group(owner, &[member, removed, guest], "all").await?;
        let group_of_blocked = world.group(blocked, &[guest], "all").await?;
        let send = Send { conversation: group.clone(), content: Some(content("bye")), ..Send::default() };
        let removed_message = world.connect(removed).await?.send_entry(send).await?.message_id;
        let path = format!("/v1/groups/{group}/members/{}", removed.user);
        let answer = world.http("DELETE", &path, Some(&owner.access_token), None).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(Self { group, group_of_blocked, removed_message })
    }

    /// The conversation that an operation of a caller acts on.
    pub(super) fn conversation(&self, cast: &Cast, caller: Caller) -> String {
        match caller {
            Caller::Blocked => cast.owner.conversation_with(&cast.blocked),
            _ => self.group.clone(),
        }
    }

    /// The group that a request of a caller about a group acts on.
    pub(super) fn group_of(&self, caller: Caller) -> &str {
        match caller {
            Caller::Blocked => &self.group_of_blocked,
            _ => &self.group,
        }
    }
}
