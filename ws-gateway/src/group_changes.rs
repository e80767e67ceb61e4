//! Changes of groups.
//!
//! A change is an entry of the conversation and takes the same path as a message: through the log, after everything that was
//! acknowledged before it. Stored directly, it could overtake such a message, and a new member would see it. The caller gets
//! its answer after the change is stored, so it can rely on the change from then on.

use crate::{dependencies::DbClient, entry_log::EntryLog, hub::Identity, permissions::Permissions, trace};
use abi::{
    ApiError,
    v1::{CheckChangeRequest, Entry, GroupChange, SaveResult, entry::Content, group_change::Change},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use utils::trace::Kind;

/// Pause before the first check whether a logged change is stored. It doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait until a logged change is stored. If it takes longer, the consumer or the store is down.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// A logged change that the store still refuses after this time is refused permanently, unless the consumer lags.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(500);

/// Makes changes of groups.
#[derive(Debug)]
pub struct GroupChanges {
    db: DbClient,
    entry_log: Arc<EntryLog>,
    permissions: Arc<Permissions>,
}

impl GroupChanges {
    pub(crate) fn new(db: DbClient, entry_log: Arc<EntryLog>, permissions: Arc<Permissions>) -> Self {
        Self { db, entry_log, permissions }
    }

    /// Makes a change, and returns its entry as stored. Repeated with the same `request_id` it returns the same entry.
    ///
    /// # Errors
    /// Those of db-service for a change that is not allowed; `UNAVAILABLE` if the change may or may not be made.
    pub async fn apply(
        &self,
        identity: &Identity,
        conversation: String,
        request_id: String,
        change: Change,
    ) -> Result<Entry, ApiError> {
        let content = Content::GroupChange(GroupChange { change: Some(change) });
        let mut entry = self.entry_log.entry(identity, conversation, request_id, content);
        let spans = trace::begin("change", &entry);
        let stored = match self.check(&entry).await? {
            Some(stored) => stored,
            None => {
                self.entry_log.append(&entry, spans.children("log", Kind::Producer)).await?;
                let waiting = spans.children("wait", Kind::Internal);
                let stored = self.wait_until_stored(&entry).await?;
                waiting.finish();
                stored
            }
        };
        if let Some(members) = stored.members {
            // A removed member could send as long as the cache holds the old members.
            self.permissions.update_members(&entry.conversation, &members).await.map_err(|error| {
                tracing::warn!(%error, "a group has changed, but the cache still has its old members");
                ApiError::unavailable(
                    "the change is stored but not yet in force everywhere; repeat it with the same request_id",
                )
            })?;
        }
        entry.conversation_seq = stored.conversation_seq;
        entry.countable_seq = stored.countable_seq;
        spans.finish();
        Ok(entry)
    }

    /// The result of a change that is already stored; `None` if it is not stored but allowed.
    async fn check(&self, entry: &Entry) -> Result<Option<SaveResult>, ApiError> {
        let request = CheckChangeRequest { entry: Some(entry.clone()) };
        Ok(self.db.clone().check_change(request).await?.into_inner().stored)
    }

    /// Waits until the consumer has stored a change that was logged.
    async fn wait_until_stored(&self, entry: &Entry) -> Result<SaveResult, ApiError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
            match self.check(entry).await {
                Ok(Some(stored)) => return Ok(stored),
                Ok(None) if began.elapsed() < STORE_TIMEOUT => {}
                Ok(None) => {
                    return Err(ApiError::unavailable(
                        "the change is in the log but not stored yet; repeat it with the same request_id to get its result",
                    ));
                }
                // An earlier change conflicts with this one. Yet another one may follow that allows it again.
                Err(_) if began.elapsed() < REFUSAL_TIMEOUT => {}
                Err(refusal) => return Err(refusal),
            }
        }
    }
}
