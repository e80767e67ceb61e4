//! Reading: changes, heads, pages of history, readers, profiles. Entries and heads stay encoded.

use crate::{
    dependencies::{DbClient, Dependencies},
    permissions::cache_away,
};
use abi::{
    ApiError,
    ids::Conversation,
    v1::{
        Blocks, ChangesPage, EntriesPage, GetBlocks, GetBlocksRequest, GetChanges, GetHeads, GetHistory,
        GetProfiles, GetProfilesRequest, GetReaders, HeadsOfRequest, HeadsPage, HeadsRequest, HistoryRequest,
        PresencePrivacy, Profile, Profiles, Readers, ReadersRequest, ReceiverSeq,
    },
};
use cache::{Cache, Changes};
use std::{fmt, sync::Arc};

/// Most users whose profiles one request names.
const MAX_PROFILES: usize = 100;
/// Subjects of changes that are not conversations.
pub const PROFILE: &str = "~profile";
/// See [`PROFILE`].
pub const BLOCKS: &str = "~blocks";

/// Reads on behalf of a user.
pub struct Reading {
    app: String,
    db: DbClient,
    cache: Arc<dyn Cache>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("app", &self.app).finish_non_exhaustive()
    }
}

impl Reading {
    pub(crate) fn new(app: &str, dependencies: &Dependencies) -> Self {
        Self { app: app.into(), db: dependencies.db_client(), cache: dependencies.cache.clone() }
    }

    /// The changes for a user: the page that the request describes.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a limit or a cursor that is invalid; `UNAVAILABLE`; otherwise those of db-service.
    pub async fn changes(&self, user: &str, request: GetChanges) -> Result<ChangesPage, ApiError> {
        let limit = page_limit(request.limit)?;
        if !request.cursor.is_empty() {
            let cursor = Cursor::parse(&request.cursor)?;
            return self.everything(user, cursor, limit).await;
        }
        // Read before the heads: a change between the two is in the heads, and the device asks for it once more.
        let have = request.have.unwrap_or_default();
        let changes = self.cache.changes(&self.app, user, have).await.map_err(|_| cache_away())?;
        let Changes { now, subjects } = changes;
        match subjects {
            Some(subjects) if subjects.len() <= limit.unsigned_abs() as usize => {
                self.changed(user, now, subjects).await
            }
            _ => self.everything(user, Cursor { now, heads: String::new() }, limit).await,
        }
    }

    async fn changed(
        &self,
        user: &str,
        now: ReceiverSeq,
        subjects: Vec<String>,
    ) -> Result<ChangesPage, ApiError> {
        let mut page = ChangesPage { receiver_seq: Some(now), ..ChangesPage::default() };
        let has = |name: &str| subjects.iter().any(|subject| subject == name);
        let (has_profile, has_blocks) = (has(PROFILE), has(BLOCKS));
        let conversations: Vec<String> =
            subjects.into_iter().filter(|subject| !subject.starts_with('~')).collect();
        if !conversations.is_empty() {
            page.heads = self.heads_of(user, conversations).await?.heads;
        }
        if has_profile {
            page.profile = self.own_profile(user).await?;
        }
        if has_blocks {
            page.blocks = Some(self.blocks(user, GetBlocks::default()).await?);
        }
        Ok(page)
    }

    async fn everything(&self, user: &str, cursor: Cursor, limit: i32) -> Result<ChangesPage, ApiError> {
        let is_first = cursor.heads.is_empty();
        let request = HeadsRequest { app: self.app.clone(), user: user.into(), cursor: cursor.heads, limit };
        let HeadsPage { heads, next } = self.db.clone().heads(request).await?.into_inner();
        let now = cursor.now;
        let next = if next.is_empty() { next } else { Cursor { now, heads: next }.to_string() };
        let mut page =
            ChangesPage { receiver_seq: Some(now), everything: true, heads, next, ..ChangesPage::default() };
        if is_first {
            page.profile = self.own_profile(user).await?;
            page.blocks = Some(self.blocks(user, GetBlocks::default()).await?);
        }
        Ok(page)
    }

    async fn own_profile(&self, user: &str) -> Result<Option<Profile>, ApiError> {
        Ok(self.stored_profiles(vec![user.into()]).await?.profiles.pop())
    }

    async fn stored_profiles(&self, users: Vec<String>) -> Result<Profiles, ApiError> {
        let request = GetProfilesRequest { app: self.app.clone(), users };
        Ok(self.db.clone().get_profiles(request).await?.into_inner())
    }

    /// The heads of named conversations.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for an id that is invalid, or for too many; otherwise those of db-service.
    pub async fn heads(&self, user: &str, request: GetHeads) -> Result<HeadsPage, ApiError> {
        let max = abi::MAX_PAGE.unsigned_abs() as usize;
        let count = request.conversations.len();
        if !(1..=max).contains(&count) {
            return Err(ApiError::invalid(format!("conversations must name 1 to {max}; it names {count}")));
        }
        let canonical = |id: &String| Conversation::parse(id).map(|conversation| conversation.to_string());
        let conversations = request.conversations.iter().map(canonical).collect::<Result<_, _>>()?;
        self.heads_of(user, conversations).await
    }

    async fn heads_of(&self, user: &str, conversations: Vec<String>) -> Result<HeadsPage, ApiError> {
        let request = HeadsOfRequest { app: self.app.clone(), user: user.into(), conversations };
        Ok(self.db.clone().heads_of(request).await?.into_inner())
    }

    /// A page of a conversation, with the entries that the user may see and about `max_bytes` of content (0: one MiB); at least one
    /// entry.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a limit, a conversation or a cursor that is invalid; otherwise those of db-service.
    pub async fn history(
        &self,
        user: &str,
        mut page: GetHistory,
        max_bytes: usize,
    ) -> Result<EntriesPage, ApiError> {
        page.limit = page_limit(page.limit)?;
        page.conversation = Conversation::parse(&page.conversation)?.to_string();
        let cursors = [page.after > 0, page.before > 0, page.newest];
        if cursors.into_iter().filter(|is_set| *is_set).count() > 1 {
            return Err(ApiError::invalid("set at most one of after, before and newest"));
        }
        let (app, max_bytes) = (self.app.clone(), max_bytes as u64);
        let request = HistoryRequest { app, user: user.into(), page: Some(page), max_bytes };
        Ok(self.db.clone().history(request).await?.into_inner())
    }

    /// A page of the users who have read an entry and of those who have not.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a limit or a conversation that is invalid; otherwise those of db-service.
    pub async fn readers(&self, user: &str, mut page: GetReaders) -> Result<Readers, ApiError> {
        page.limit = page_limit(page.limit)?;
        page.conversation = Conversation::parse(&page.conversation)?.to_string();
        let request = ReadersRequest { app: self.app.clone(), user: user.into(), page: Some(page) };
        Ok(self.db.clone().readers(request).await?.into_inner())
    }

    /// A page of the users whom a user has blocked.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a limit that is out of bounds; otherwise those of db-service.
    pub async fn blocks(&self, user: &str, mut page: GetBlocks) -> Result<Blocks, ApiError> {
        page.limit = page_limit(page.limit)?;
        let request = GetBlocksRequest { app: self.app.clone(), user: user.into(), page: Some(page) };
        Ok(self.db.clone().get_blocks(request).await?.into_inner())
    }

    /// Profiles, without the members that only their users may see.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for an id that is invalid, or for too many; otherwise those of db-service.
    pub async fn profiles(&self, user: &str, request: GetProfiles) -> Result<Profiles, ApiError> {
        let count = request.users.len();
        if !(1..=MAX_PROFILES).contains(&count) {
            return Err(ApiError::invalid(format!("users must name 1 to {MAX_PROFILES}; it names {count}")));
        }
        for id in &request.users {
            abi::ids::check_id("user", id)?;
        }
        let mut found = self.stored_profiles(request.users).await?;
        for profile in found.profiles.iter_mut().filter(|profile| profile.user != user) {
            profile.set_privacy(PresencePrivacy::Unspecified);
        }
        Ok(found)
    }
}

/// The size of a page that a device requested.
///
/// # Errors
/// `INVALID_REQUEST` if it is out of bounds.
pub(crate) fn page_limit(limit: i32) -> Result<i32, ApiError> {
    match limit {
        0 => Ok(abi::DEFAULT_PAGE),
        1..=abi::MAX_PAGE => Ok(limit),
        _ => Err(ApiError::invalid(format!(
            "limit must be 1 to {}, or 0 for {}, got {limit}",
            abi::MAX_PAGE,
            abi::DEFAULT_PAGE
        ))),
    }
}

/// Where the next page of everything begins: the receiver seq from before the first page, and the cursor of db-service.
#[derive(Debug, PartialEq)]
struct Cursor {
    now: ReceiverSeq,
    heads: String,
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let parsed = || {
            let (epoch, rest) = text.split_once('.')?;
            let (seq, heads) = rest.split_once('.')?;
            let now = ReceiverSeq { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? };
            Some(Self { now, heads: heads.to_owned() }).filter(|cursor| !cursor.heads.is_empty())
        };
        parsed().ok_or_else(|| ApiError::invalid("cursor must be `next` of the previous page"))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.now.epoch, self.now.seq, self.heads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_the_receiver_seq_of_the_first_page() {
        let cursor = Cursor { now: ReceiverSeq { epoch: 7, seq: u64::MAX }, heads: "1.2.d:a:b".into() };
        assert_eq!(Cursor::parse(&cursor.to_string()).unwrap(), cursor);
        for text in ["", "x", "1.2", "1.2.", "1.x.h", "-1.2.h"] {
            Cursor::parse(text).unwrap_err();
        }
    }
}
