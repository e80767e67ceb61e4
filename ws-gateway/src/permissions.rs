//! Permissions: which user may send to which conversation, and who is a member of a group.

use crate::{
    blocks::Blocks,
    dependencies::{DbClient, Dependencies},
};
use abi::{
    ApiError,
    error::ErrorCode,
    ids::Conversation,
    v1::{GetMembersRequest, GetProfilesRequest, Members},
};
use cache::{Cache, MEMBERS_TTL};
use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Most users that are remembered as existing. When the set is full it is cleared.
const MAX_KNOWN_USERS: usize = 100_000;

/// Checks permissions against the store, through the cache.
pub struct Permissions {
    app: String,
    db: DbClient,
    cache: Arc<dyn Cache>,
    blocks: Arc<Blocks>,
    /// Users that are known to exist. An account is never deleted, so a hit stays valid.
    known_users: Mutex<HashSet<String>>,
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permissions").field("app", &self.app).finish_non_exhaustive()
    }
}

impl Permissions {
    pub(crate) fn new(app: &str, dependencies: &Dependencies, blocks: Arc<Blocks>) -> Self {
        Self {
            app: app.into(),
            db: dependencies.db_client(),
            cache: Arc::clone(&dependencies.cache),
            blocks,
            known_users: Mutex::default(),
        }
    }

    /// Checks that a user may send to a conversation.
    ///
    /// # Errors
    /// `FORBIDDEN`: not a member, or blocked; `NOT_FOUND` if the other user does not exist.
    pub async fn check_send(&self, user: &str, conversation: Conversation<'_>) -> Result<(), ApiError> {
        match conversation {
            Conversation::Direct(a, b) => {
                if conversation.has_direct_member(user) != Some(true) {
                    return Err(not_a_member());
                }
                let other = if a == user { b } else { a };
                self.check_exists(other).await?;
                self.blocks.check(user, other).await
            }
            Conversation::Group(_) => self.check_member(user, &conversation.to_string()).await,
        }
    }

    /// Checks that a user is a member of a group.
    async fn check_member(&self, user: &str, conversation: &str) -> Result<(), ApiError> {
        let cached = self.cache.member(&self.app, conversation, user).await.map_err(|_| cache_away())?;
        let is_member = match cached {
            Some(membership) => membership.member.is_some(),
            None => self.members(conversation).await?.members.iter().any(|member| member.user == user),
        };
        if is_member { Ok(()) } else { Err(not_a_member()) }
    }

    /// Checks that a user exists. The answer is remembered, so that messages can be sent while db-service is away.
    async fn check_exists(&self, user: &str) -> Result<(), ApiError> {
        let known = || self.known_users.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(user) {
            return Ok(());
        }
        let request = GetProfilesRequest { app: self.app.clone(), users: vec![user.into()] };
        if self.db.clone().get_profiles(request).await?.into_inner().profiles.is_empty() {
            return Err(ApiError::not_found(format!("there is no user {user}")));
        }
        let mut known = known();
        if known.len() >= MAX_KNOWN_USERS {
            known.clear();
        }
        known.insert(user.into());
        Ok(())
    }

    /// The users who receive a signal of a user in a conversation: its other members who have not blocked the user.
    ///
    /// # Errors
    /// `FORBIDDEN`: the user is not a member.
    pub async fn audience(
        &self,
        user: &str,
        conversation: Conversation<'_>,
    ) -> Result<Vec<String>, ApiError> {
        let others = match conversation {
            Conversation::Direct(..) => {
                self.check_send(user, conversation).await?;
                conversation.direct_members().filter(|other| *other != user).map(Into::into).collect()
            }
            Conversation::Group(_) => {
                let members = self.members(&conversation.to_string()).await?;
                let mut users: Vec<String> =
                    members.members.iter().map(|member| member.user.clone()).collect();
                let before = users.len();
                users.retain(|member| member != user);
                if users.len() == before {
                    return Err(not_a_member());
                }
                users
            }
        };
        let blockers = self.blocks.blockers(user, &others).await?;
        Ok(others.into_iter().filter(|other| !blockers.contains(other)).collect())
    }

    /// The members of a group, from the cache if it has them.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the cache does not answer; otherwise those of [`Self::stored_members`].
    pub async fn members(&self, conversation: &str) -> Result<Arc<Members>, ApiError> {
        let cached = self.cache.members(&self.app, conversation).await;
        match cached.map_err(|_| cache_away())? {
            Some(members) => Ok(members),
            None => {
                let members = self.stored_members(conversation).await?;
                if let Err(error) = self.update_members(conversation, &members).await {
                    tracing::warn!(%error, "cannot cache the members of a group");
                }
                Ok(Arc::new(members))
            }
        }
    }

    /// The members of a group, from the store.
    ///
    /// # Errors
    /// `FORBIDDEN` if there is no such group: the error must not reveal which groups exist.
    pub async fn stored_members(&self, conversation: &str) -> Result<Members, ApiError> {
        let request = GetMembersRequest { app: self.app.clone(), conversation: conversation.into() };
        match self.db.clone().get_members(request).await.map_err(ApiError::from) {
            Ok(members) => Ok(members.into_inner()),
            Err(error) if error.code == ErrorCode::NotFound => Err(not_a_member()),
            Err(error) => Err(error),
        }
    }

    /// Puts the members of a group into the cache, unless it has a newer version.
    ///
    /// # Errors
    /// The cache does not answer. Other gateways may then use the old members until the entry expires.
    pub async fn update_members(&self, conversation: &str, members: &Members) -> cache::Result<()> {
        self.cache.put_members(&self.app, conversation, members, MEMBERS_TTL).await
    }
}

/// The error for a conversation that does not exist, and for one of which the user is not a member.
pub fn not_a_member() -> ApiError {
    ApiError::forbidden("you are not a member of this conversation")
}

/// The error while the cache does not answer.
pub fn cache_away() -> ApiError {
    ApiError::unavailable("the cache does not answer; try again")
}
