//! Acknowledgements of messages to groups.
//!
//! The sender may have been removed between the check of the permission and the log. The gateway that removes a user first sets a
//! fence, then logs the removal. So a message that the log has while there is no fence comes before the removal. If there is a fence, or
//! the cache may have lost it, the store decides, and the message is acknowledged only if it is stored. Thus nothing acknowledged is
//! behind its sender's removal.

use crate::{
    dependencies::DbClient, entry_log::NewEntry, fences::Fences, permissions::not_a_member,
    request_tasks::RequestTasks,
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{CheckChangeRequest, SaveResult},
};
use cache::{Doubt, FenceState, Logged};
use futures_util::future::join_all;
use std::{
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

/// Pause between two questions to the store about a message of a sender who may be fenced.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// How long to ask. The message is then refused as unavailable; the device repeats it.
const DECISION_TIMEOUT: Duration = Duration::from_secs(5);

/// Called once, with the result of the message.
pub type Answer = Box<dyn FnOnce(Result<(), ApiError>) + Send>;

struct Pending {
    new: NewEntry,
    message: Logged,
    answer: Answer,
}

/// The messages to groups that are logged and not acknowledged yet.
pub struct GroupAcks {
    app: String,
    db: DbClient,
    fences: Arc<Fences>,
    tasks: RequestTasks,
    /// Messages are logged by threads of the log.
    runtime: Handle,
    /// Bounded by the messages in flight of all connections. `None`: no task is working on them.
    pending: Mutex<Option<Vec<Pending>>>,
}

impl fmt::Debug for GroupAcks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupAcks").field("app", &self.app).finish_non_exhaustive()
    }
}

impl GroupAcks {
    pub(crate) fn new(app: &str, db: DbClient, fences: Arc<Fences>, tasks: RequestTasks) -> Self {
        Self { app: app.into(), db, fences, tasks, runtime: Handle::current(), pending: Mutex::default() }
    }

    /// Answers a message that the log has durably, as soon as it is known to come before any removal of its sender. Messages that
    /// arrive while others are looked at form one batch.
    pub fn logged(self: &Arc<Self>, new: NewEntry, message: Logged, answer: Answer) {
        if self.fences.is_known_clear(&new.entry, message) {
            answer(Ok(()));
            return;
        }
        let pending = Pending { new, message, answer };
        let mut waiting = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiting.as_mut() {
            waiting.push(pending);
            return;
        }
        *waiting = Some(vec![pending]);
        drop(waiting);
        let acks = self.clone();
        self.tasks.run_on(&self.runtime, async move { acks.work().await });
    }

    async fn work(self: Arc<Self>) {
        loop {
            let batch = {
                let mut waiting = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
                match waiting.as_mut().map(mem::take) {
                    Some(batch) if !batch.is_empty() => batch,
                    _ => {
                        *waiting = None;
                        return;
                    }
                }
            };
            let states =
                join_all(batch.iter().map(|pending| self.fences.state(&pending.new.entry, pending.message)))
                    .await;
            for (pending, state) in batch.into_iter().zip(states) {
                let doubt = match state {
                    Ok(FenceState::Clear) => {
                        (pending.answer)(Ok(()));
                        continue;
                    }
                    Ok(FenceState::Fenced) => None,
                    Ok(FenceState::Unknown(doubt)) => Some(doubt),
                    Err(error) => {
                        (pending.answer)(Err(error));
                        continue;
                    }
                };
                let acks = self.clone();
                self.tasks.run_on(&self.runtime, async move { acks.decide(pending, doubt).await });
            }
        }
    }

    /// Answers a message as the store decides. `doubt`: that of the cache, if it may have lost a fence.
    async fn decide(&self, Pending { new, message, answer }: Pending, doubt: Option<Doubt>) {
        match self.decision(&new).await {
            Ok(stored) => {
                answer(Ok(()));
                if let Some(doubt) = doubt {
                    self.fences.end_doubt(&new, stored.conversation_seq, message, doubt).await;
                }
            }
            Err(error) => answer(Err(error)),
        }
    }

    /// The result of a message that the store has accepted.
    async fn decision(&self, new: &NewEntry) -> Result<SaveResult, ApiError> {
        let began = Instant::now();
        loop {
            let request = CheckChangeRequest { app: self.app.clone(), entry: new.bytes.clone() };
            match self.db.clone().check_change(request).await.map_err(ApiError::from) {
                Ok(checked) => {
                    if let Some(stored) = checked.into_inner().stored {
                        return Ok(stored);
                    }
                }
                // The removal is stored. If the message came before it, it would be stored as well.
                Err(error) if error.code == ErrorCode::Forbidden => return Err(not_a_member()),
                Err(error) => tracing::debug!(%error, "cannot ask the store about a message to a group"),
            }
            if began.elapsed() >= DECISION_TIMEOUT {
                return Err(ApiError::unavailable(
                    "the message is not stored yet, and you may be removed from this group before it; send it again with the same \
                     client_msg_id",
                ));
            }
            sleep(ASK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests;
