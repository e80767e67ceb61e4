//! Entries that the store decides: edits, recalls, reactions, and changes of groups.
//!
//! Such an entry takes the same path as a message: through the log, after everything that was acknowledged before it. Stored
//! directly, it could overtake such a message. The store decides in the order of the log. The caller gets its answer after the
//! entry is stored, so it can rely on the change from then on.

use crate::{
    dependencies::DbClient,
    entry_log::{Draft, EntryLog, NewEntry},
    fences::Fences,
    hub::Identity,
    outcomes::{Expected, Outcomes},
    permissions::Permissions,
    trace,
};
use abi::{
    ApiError,
    envelope::GROUP,
    error::ErrorCode,
    v1::{CheckChangeRequest, Entry, SaveOutcome, SaveResult},
};
use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use utils::trace::Kind;

/// How long to wait for an outcome before asking the store for it. An outcome takes milliseconds; it is lost only if a pusher or
/// this gateway's address can't be reached.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait until a logged entry is decided. If it takes longer, the consumer or the store is down.
const DECISION_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes changes.
#[derive(Debug)]
pub struct EntryChanges {
    app: String,
    /// Address of this gateway, to which outcomes are sent.
    address: String,
    db: DbClient,
    entry_log: Arc<EntryLog>,
    permissions: Arc<Permissions>,
    fences: Arc<Fences>,
    outcomes: Outcomes,
}

impl EntryChanges {
    pub(crate) fn new(
        app: &str,
        address: &str,
        db: DbClient,
        entry_log: Arc<EntryLog>,
        permissions: Arc<Permissions>,
        fences: Arc<Fences>,
        outcomes: Outcomes,
    ) -> Self {
        Self { app: app.into(), address: address.into(), db, entry_log, permissions, fences, outcomes }
    }

    /// Makes a change, and returns its entry as stored. Repeated with the same `client_msg_id` it returns the same entry.
    ///
    /// # Errors
    /// Those of db-service for a change that is not allowed; `UNAVAILABLE` if the change may or may not be made.
    pub async fn apply(&self, identity: &Identity, draft: Draft) -> Result<Entry, ApiError> {
        let new = self.entry_log.entry(identity, draft);
        let spans = trace::begin("change", &new.entry);
        let (stored, fenced) = match self.check(&new).await? {
            Some(mut stored) => {
                let removed = mem::take(&mut stored.removed);
                (stored, removed)
            }
            None => {
                let fenced = self.fences.set(&new.entry).await?;
                let mut expected = self.outcomes.expect(&new.entry.message_id);
                let logging = spans.children("log", Kind::Producer);
                let record = self.entry_log.record(&new, &logging, Some(&self.address));
                self.entry_log.append(record, logging).await?;
                let waiting = spans.children("wait", Kind::Internal);
                let stored = self.decision(&new, &mut expected).await?;
                waiting.finish();
                (stored, fenced)
            }
        };
        let mut entry = new.entry;
        if let Some(members) = &stored.members {
            // A removed member could send as long as the cache holds the old members.
            self.permissions.update_members(&entry.conversation, members).await.map_err(|error| {
                tracing::warn!(%error, "a group has changed, but the cache still has its old members");
                ApiError::unavailable(
                    "the change is stored but not yet in force everywhere; repeat it with the same request_id",
                )
            })?;
            self.fences.release(&entry, &fenced).await;
        }
        entry.conversation_seq = stored.conversation_seq;
        entry.countable_seq = stored.countable_seq;
        entry.refers_to_seq = stored.refers_to_seq;
        entry.target_state = stored.target_state;
        spans.finish();
        Ok(entry)
    }

    /// The result of a change that is already stored; `None` if it is not stored but may be logged.
    async fn check(&self, new: &NewEntry) -> Result<Option<SaveResult>, ApiError> {
        match self.stored(new).await {
            // The entry to change may be in the log and not stored yet. The store decides after it has stored that one.
            Err(error) if error.code == ErrorCode::NotFound && new.entry.kind != GROUP => Ok(None),
            result => result,
        }
    }

    async fn stored(&self, new: &NewEntry) -> Result<Option<SaveResult>, ApiError> {
        let request = CheckChangeRequest { app: self.app.clone(), entry: new.bytes.clone() };
        Ok(self.db.clone().check_change(request).await?.into_inner().stored)
    }

    /// Waits for the decision about a logged entry.
    async fn decision(&self, new: &NewEntry, expected: &mut Expected) -> Result<SaveResult, ApiError> {
        let began = Instant::now();
        while began.elapsed() < DECISION_TIMEOUT {
            if let Ok(result) = timeout(ASK_INTERVAL, expected.arrival()).await {
                return accepted(result);
            }
            // A refusal here is not final: an entry ahead in the log may allow the change.
            if let Ok(Some(stored)) = self.stored(new).await {
                return Ok(stored);
            }
        }
        Err(ApiError::unavailable(
            "the change is in the log but not stored yet; repeat it with the same id to get its result",
        ))
    }
}

fn accepted(result: SaveResult) -> Result<SaveResult, ApiError> {
    match (result.outcome(), result.error) {
        (SaveOutcome::Stored | SaveOutcome::Duplicate, _) => {}
        (_, Some(error)) => return Err(error.into()),
        (_, None) => return Err(ApiError::new(ErrorCode::Internal, "the store gave no outcome")),
    }
    Ok(SaveResult { error: None, ..result })
}
