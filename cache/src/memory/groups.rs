//! Members of groups.

use super::{MemoryCache, generational_map::Weigh};
use crate::{Doubt, FenceState, Groups, Logged, Membership, Result};
use abi::v1::{Member, Members};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// The members of a group.
#[derive(Debug)]
pub(super) struct Group {
    members: Arc<Members>,
    /// Positions in `members`, sorted by user.
    by_user: Box<[u32]>,
    expires: Instant,
}

impl Weigh for Group {
    fn weight(&self) -> usize {
        self.members.members.len().max(1)
    }
}

impl Group {
    fn new(members: &Members, expires: Instant) -> Self {
        let mut by_user: Box<[u32]> = (0..).take(members.members.len()).collect();
        by_user.sort_unstable_by_key(|position| &members.members[*position as usize].user);
        Self { members: Arc::new(members.clone()), by_user, expires }
    }

    fn member(&self, user: &str) -> Option<&Member> {
        let member = |position: &u32| &self.members.members[*position as usize];
        let found = self.by_user.binary_search_by_key(&user, |position| member(position).user.as_str());
        found.ok().map(|index| member(&self.by_user[index]))
    }
}

impl MemoryCache {
    /// Reads from the members of a group, if they are cached.
    fn read_group<T>(&self, app: &str, conversation: &str, read: impl FnOnce(&Group) -> T) -> Option<T> {
        let now = Instant::now();
        let value = self.with_app(app, |app| {
            app.groups.get_mut(conversation).filter(|group| group.expires > now).map(|group| read(group))
        });
        crate::metrics::members(value.is_some());
        value
    }
}

#[async_trait::async_trait]
impl Groups for MemoryCache {
    async fn members(&self, app: &str, conversation: &str) -> Result<Option<Arc<Members>>> {
        Ok(self.read_group(app, conversation, |group| Arc::clone(&group.members)))
    }

    async fn member(&self, app: &str, conversation: &str, user: &str) -> Result<Option<Membership>> {
        Ok(self.read_group(app, conversation, |group| Membership {
            version: group.members.version,
            member: group.member(user).cloned(),
        }))
    }

    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        ttl: Duration,
    ) -> Result<()> {
        let now = Instant::now();
        let group = Group::new(members, now + ttl);
        self.with_app(app, |app| {
            let cached = app.groups.get_mut(conversation).filter(|group| group.expires > now);
            if cached.is_none_or(|cached| cached.members.version <= members.version) {
                app.groups.insert(conversation, group);
            }
        });
        Ok(())
    }

    async fn fence(
        &self,
        app: &str,
        conversation: &str,
        users: &[&str],
        removal: &str,
        ttl: Duration,
    ) -> Result<()> {
        self.with_app(app, |app| app.fences.set(conversation, users, removal, ttl));
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
        self.with_app(app, |app| app.fences.release(conversation, users, removal, ttl));
        Ok(())
    }

    async fn fence_state(
        &self,
        app: &str,
        conversation: &str,
        user: &str,
        message: Logged,
    ) -> Result<FenceState> {
        Ok(self.with_app(app, |app| app.fences.state(conversation, user, message)))
    }

    fn local_fence_state(
        &self,
        app: &str,
        conversation: &str,
        user: &str,
        message: Logged,
    ) -> Option<FenceState> {
        Some(self.with_app(app, |app| app.fences.state(conversation, user, message)))
    }

    async fn message_saved(&self, app: &str, message: Logged, doubt: Doubt) -> Result<()> {
        self.with_app(app, |app| app.fences.saved(message, doubt));
        Ok(())
    }
}
