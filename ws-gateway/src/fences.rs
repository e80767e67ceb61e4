//! Fences: they mark the users whose removal from a group may be in the log and is not decided yet.
//!
//! The cache may lose fences. It then answers [`FenceState::Unknown`] until a gateway proves, partition by partition, that the store has
//! decided every removal whose fence may be lost.

use crate::{
    dependencies::{DbClient, Dependencies},
    entry_log::NewEntry,
    permissions::{Permissions, cache_away},
};
use abi::{
    ApiError,
    v1::{Entry, Envelope, GetHistory, HistoryRequest, group_change::Change},
};
use cache::{Cache, Doubt, FENCE_TTL, FenceState, Logged};
use prost::Message as _;
use std::{fmt, sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// Longest time to set fences, in the middle of which the process may be paused. A removal is not logged after it.
const FENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// Added to the timeout of the producer: the time to set fences, and the time that a broker may need for a request that the producer
/// has given up.
const LOG_SLACK: Duration = Duration::from_secs(55);

/// Sets fences, asks about them, and lets them end.
pub struct Fences {
    app: String,
    db: DbClient,
    cache: Arc<dyn Cache>,
    permissions: Arc<Permissions>,
    /// Longest time from a fence to the removal in the log, and from the check of a sender to the message in the log.
    log_time: Duration,
    /// Locked during a proof. One at a time is enough: every message to a partition in doubt is an opportunity.
    proof: Mutex<()>,
}

impl fmt::Debug for Fences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fences").field("app", &self.app).finish_non_exhaustive()
    }
}

impl Fences {
    /// `produce_timeout`: the time limit of a record.
    pub(crate) fn new(
        app: &str,
        dependencies: &Dependencies,
        permissions: Arc<Permissions>,
        produce_timeout: Duration,
    ) -> Self {
        Self {
            app: app.into(),
            db: dependencies.db_client(),
            cache: Arc::clone(&dependencies.cache),
            permissions,
            log_time: produce_timeout + LOG_SLACK,
            proof: Mutex::default(),
        }
    }

    /// Sets a fence for the users whom a change of a group removes, and returns them. Call it before the change is logged. A message of
    /// such a user that is logged from now on may be behind the removal, and is acknowledged only when it turns out not to be.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the removal must not be logged.
    pub async fn set(&self, entry: &Entry) -> Result<Vec<String>, ApiError> {
        let change = entry.group_change.as_ref().and_then(|change| change.change.as_ref());
        let removed: Vec<String> = match change {
            Some(Change::Removed(removed)) => removed.users.clone(),
            Some(Change::Left(_)) => vec![entry.sender.clone()],
            Some(Change::Dissolved(_)) => {
                let members = self.permissions.stored_members(&entry.conversation).await?;
                members.members.into_iter().map(|member| member.user).collect()
            }
            _ => return Ok(Vec::new()),
        };
        let users: Vec<&str> = removed.iter().map(String::as_str).collect();
        let (conversation, removal) = (&entry.conversation, &entry.message_id);
        let began = Instant::now();
        let set = self.cache.fence(&self.app, conversation, &users, removal, FENCE_TTL).await;
        if set.is_err() || began.elapsed() > FENCE_TIMEOUT {
            return Err(ApiError::unavailable(
                "the cache does not answer in time, so nobody was removed; repeat it with the same request_id",
            ));
        }
        Ok(removed)
    }

    /// Lets the fences of a removal end that is stored, and in force in the cache. A message that passed the check before may still be
    /// logged for a time, and the fences stand for that time.
    pub async fn release(&self, removal: &Entry, users: &[String]) {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        let (conversation, id) = (&removal.conversation, &removal.message_id);
        if let Err(error) = self.cache.release(&self.app, conversation, &users, id, self.log_time).await {
            tracing::debug!(%error, "the fences of a removal stand longer than they need to");
        }
    }

    /// Whether a message that was logged may be behind its sender's removal from the group.
    ///
    /// # Errors
    /// `UNAVAILABLE`: not known, so the message must not be acknowledged.
    pub async fn state(&self, entry: &Entry, message: Logged) -> Result<FenceState, ApiError> {
        let state = self.cache.fence_state(&self.app, &entry.conversation, &entry.sender, message).await;
        state.map_err(|_| cache_away())
    }

    /// Whether this process knows, without a call to the cache, that a message is ahead of every removal of its sender.
    pub fn is_known_clear(&self, entry: &Entry, message: Logged) -> bool {
        let state = self.cache.local_fence_state(&self.app, &entry.conversation, &entry.sender, message);
        state == Some(FenceState::Clear)
    }

    /// Uses a stored message to end a doubt: the store has decided everything that is ahead of it in its partition. `seq`: the
    /// `conversation_seq` of the stored message.
    pub async fn end_doubt(&self, new: &NewEntry, seq: u64, message: Logged, doubt: Doubt) {
        if !doubt.is_before(message, self.log_time) {
            return;
        }
        let Ok(_proof) = self.proof.try_lock() else { return };
        let ended = match self.is_stored_copy(new, seq).await {
            Ok(true) => self.cache.message_saved(&self.app, message, doubt).await.map_err(|_| cache_away()),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "the store still decides about messages to groups");
        }
    }

    /// Whether the store has this copy of a message. If the device has sent the message several times, it may have an earlier one, which
    /// proves nothing about this one. Copies differ in the time at which a gateway accepted them.
    async fn is_stored_copy(&self, new: &NewEntry, seq: u64) -> Result<bool, ApiError> {
        let Entry { conversation, sender, message_id, sent_at_ms, .. } = &new.entry;
        let page = GetHistory {
            conversation: conversation.clone(),
            after: seq.saturating_sub(1),
            limit: 1,
            ..GetHistory::default()
        };
        let (app, user) = (self.app.clone(), sender.clone());
        let request = HistoryRequest { app, user, page: Some(page), max_bytes: 0 };
        let page = self.db.clone().history(request).await?.into_inner();
        let stored = page.entries.first().and_then(|entry| Envelope::decode(entry.clone()).ok());
        Ok(stored.is_some_and(|stored| stored.message_id == *message_id && stored.sent_at_ms == *sent_at_ms))
    }
}
