//! Permissions: which user may send to which conversation, and who is a member of a group.

use crate::dependencies::{DbClient, Dependencies};
use abi::{
    ApiError,
    error::ErrorCode,
    ids::Conversation,
    v1::{GetMembersRequest, GetUserRequest, Members},
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
    /// Users that are known to exist. An account is never deleted, so a hit stays valid.
    known_users: Mutex<HashSet<String>>,
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permissions").field("app", &self.app).finish_non_exhaustive()
    }
}

impl Permissions {
    pub(crate) fn new(app: &str, dependencies: &Dependencies) -> Self {
        Self {
            app: app.into(),
            db: dependencies.db_client(),
            cache: Arc::clone(&dependencies.cache),
            known_users: Mutex::default(),
        }
    }

    /// Checks that a user may send to a conversation.
    ///
    /// # Errors
    /// `FORBIDDEN`; `NOT_FOUND` if the other user does not exist.
    pub async fn check_send(&self, user: &str, conversation: Conversation<'_>) -> Result<(), ApiError> {
        match conversation {
            Conversation::Direct(a, b) => {
                if conversation.has_direct_member(user) != Some(true) {
                    return Err(not_a_member());
                }
                self.check_exists(if a == user { b } else { a }).await
            }
            Conversation::Group(_) => match self.is_member(&conversation.to_string(), user).await? {
                true => Ok(()),
                false => Err(not_a_member()),
            },
        }
    }

    /// Whether a user is a member of a group. Reads only that member, unless the members are not cached.
    async fn is_member(&self, conversation: &str, user: &str) -> Result<bool, ApiError> {
        let cached = self.cache.member(&self.app, conversation, user).await;
        match cached.map_err(|_| cache_unavailable())? {
            Some(membership) => Ok(membership.member.is_some()),
            None => {
                let members = self.load_members(conversation).await?;
                Ok(members.members.iter().any(|member| member.user == user))
            }
        }
    }

    async fn check_exists(&self, user: &str) -> Result<(), ApiError> {
        let known = || self.known_users.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(user) {
            return Ok(());
        }
        let request = GetUserRequest { app: self.app.clone(), user: user.into() };
        match self.db.clone().get_user(request).await.map_err(ApiError::from) {
            Ok(_) => {
                let mut known = known();
                if known.len() >= MAX_KNOWN_USERS {
                    known.clear();
                }
                known.insert(user.into());
                Ok(())
            }
            Err(error) if error.code == ErrorCode::NotFound => {
                Err(ApiError::not_found(format!("there is no user {user}")))
            }
            Err(error) => Err(error),
        }
    }

    /// The members of a group, from the cache if it has them.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the cache does not answer; otherwise those of [`Self::stored_members`].
    pub async fn members(&self, conversation: &str) -> Result<Arc<Members>, ApiError> {
        let cached = self.cache.members(&self.app, conversation).await;
        match cached.map_err(|_| cache_unavailable())? {
            Some(members) => Ok(members),
            None => self.load_members(conversation).await.map(Arc::new),
        }
    }

    /// Reads the members of a group from the store and caches them.
    async fn load_members(&self, conversation: &str) -> Result<Members, ApiError> {
        let members = self.stored_members(conversation).await?;
        if let Err(error) = self.update_members(conversation, &members).await {
            tracing::warn!(%error, "cannot cache the members of a group");
        }
        Ok(members)
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

fn cache_unavailable() -> ApiError {
    ApiError::unavailable("the cache does not answer; try again")
}

/// The error for a conversation that does not exist, and for one of which the user is not a member.
pub fn not_a_member() -> ApiError {
    ApiError::forbidden("you are not a member of this conversation")
}
