//! The users' own state: settings, blocks, profiles.

use super::{Service, check_user, limit, reading::is_direct_member, view};
use crate::{rules::outsider, user_state};
use abi::{
    ApiError, ids,
    v1::{
        Blocks, ChangeBlockRequest, ChangeSettingsRequest, ConversationSettings, FindBlockersRequest,
        GetBlocksRequest, GetProfilesRequest, Profile, ReplaceProfileRequest, SetSettings,
    },
};

/// Most users in a request.
const MAX_USERS: usize = 1_000;

impl Service {
    /// Changes settings of a conversation that the user has.
    pub(super) async fn set_settings(
        &self,
        request: ChangeSettingsRequest,
    ) -> Result<ConversationSettings, ApiError> {
        let change = request.change.unwrap_or_default();
        let view = view(request.app, request.user, &change.conversation)?;
        user_state::check_settings(&change)?;
        let (app, user, conversation) = (view.app, view.user, view.conversation);
        let head = self.conversations.heads_of(app.clone(), user.clone(), vec![conversation.clone()]).await?;
        if head.is_empty() && is_direct_member(&conversation, &user) {
            return Err(ApiError::not_found(format!(
                "{conversation} has no entries yet: it has settings from its first entry on"
            )));
        }
        if head.is_empty() {
            return Err(outsider());
        }
        Ok(self.users.change_settings(app, user, SetSettings { conversation, ..change }).await?)
    }

    /// Blocks or unblocks a user.
    pub(super) async fn set_block(&self, request: ChangeBlockRequest) -> Result<(), ApiError> {
        let block = request.block.unwrap_or_default();
        check_user(&request.app, &request.user)?;
        user_state::check_block(&request.user, &block)?;
        Ok(self.users.change_block(request.app, request.user, block).await?)
    }

    /// A page of the users whom a user has blocked.
    pub(super) async fn blocks_page(&self, request: GetBlocksRequest) -> Result<Blocks, ApiError> {
        let page = request.page.unwrap_or_default();
        check_user(&request.app, &request.user)?;
        if !page.after.is_empty() {
            ids::check_id("after", &page.after)?;
        }
        let limit = limit(page.limit)?;
        let mut users = self.users.blocks(request.app, request.user, page.after, limit + 1).await?;
        let more = users.len() > limit;
        users.truncate(limit);
        Ok(Blocks { users, more })
    }

    /// Which users have blocked a user.
    pub(super) async fn blockers(&self, request: FindBlockersRequest) -> Result<Vec<String>, ApiError> {
        check_user(&request.app, &request.blocked)?;
        check_users("by", &request.by)?;
        if request.by.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.users.blockers(request.app, request.blocked, request.by).await?)
    }

    /// Replaces a profile.
    pub(super) async fn set_profile(&self, request: ReplaceProfileRequest) -> Result<(), ApiError> {
        let profile = request.profile.unwrap_or_default();
        ids::check_id("app", &request.app)?;
        user_state::check_profile(&profile)?;
        if self.users.replace_profile(request.app, profile).await? {
            return Ok(());
        }
        Err(user_state::no_such_user())
    }

    /// The profiles of those users who exist.
    pub(super) async fn profiles_of(&self, request: GetProfilesRequest) -> Result<Vec<Profile>, ApiError> {
        ids::check_id("app", &request.app)?;
        check_users("users", &request.users)?;
        if request.users.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.users.profiles(request.app, request.users).await?)
    }
}

fn check_users(field: &str, users: &[String]) -> Result<(), ApiError> {
    let count = users.len();
    if count > MAX_USERS {
        return Err(ApiError::invalid(format!("{field} has {count} users; at most {MAX_USERS} are allowed")));
    }
    users.iter().try_for_each(|user| ids::check_id(field, user))
}
