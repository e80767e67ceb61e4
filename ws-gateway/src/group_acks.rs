//! Acknowledgements of messages to groups.
//!
//! The sender may have been removed between the check of the permission and the log. The gateway that removes a user first sets a
//! fence, then logs the removal. So a message that the log has while there is no fence comes before the removal. If there is a fence,
//! the store decides, and the message is acknowledged only if it is stored. Thus nothing acknowledged is behind its sender's removal.

use crate::{
    dependencies::DbClient,
    entry_log::NewEntry,
    permissions::{Permissions, not_a_member},
    request_tasks::RequestTasks,
};
use abi::{ApiError, error::ErrorCode, v1::CheckChangeRequest};
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

/// Pause between two questions to the store about a message of a fenced sender.
const ASK_INTERVAL: Duration = Duration::from_millis(50);
/// How long to ask. The message is then refused as unavailable; the device repeats it.
const DECISION_TIMEOUT: Duration = Duration::from_secs(5);

/// Called once, with the result of the message.
pub type Answer = Box<dyn FnOnce(Result<(), ApiError>) + Send>;

struct Logged {
    entry: NewEntry,
    answer: Answer,
}

/// The messages to groups that are logged and not acknowledged yet.
pub struct GroupAcks {
    app: String,
    db: DbClient,
    permissions: Arc<Permissions>,
    tasks: RequestTasks,
    /// Messages are logged by threads of the log.
    runtime: Handle,
    /// Bounded by the messages in flight of all connections. `None`: no task is working on them.
    logged: Mutex<Option<Vec<Logged>>>,
}

impl fmt::Debug for GroupAcks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupAcks").field("app", &self.app).finish_non_exhaustive()
    }
}

impl GroupAcks {
    pub(crate) fn new(app: &str, db: DbClient, permissions: Arc<Permissions>, tasks: RequestTasks) -> Self {
        Self { app: app.into(), db, permissions, tasks, runtime: Handle::current(), logged: Mutex::default() }
    }

    /// Answers a message that the log has durably, as soon as it is known to come before any removal of its sender. Messages that
    /// arrive while others are looked at form one batch.
    pub fn logged(self: &Arc<Self>, entry: NewEntry, answer: Answer) {
        let logged = Logged { entry, answer };
        let mut waiting = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiting.as_mut() {
            waiting.push(logged);
            return;
        }
        *waiting = Some(vec![logged]);
        drop(waiting);
        let acks = self.clone();
        self.tasks.run_on(&self.runtime, async move { acks.work().await });
    }

    async fn work(self: Arc<Self>) {
        loop {
            let batch = {
                let mut waiting = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
                match waiting.as_mut().map(mem::take) {
                    Some(batch) if !batch.is_empty() => batch,
                    _ => {
                        *waiting = None;
                        return;
                    }
                }
            };
            let fenced = join_all(batch.iter().map(|logged| {
                let entry = &logged.entry.entry;
                self.permissions.is_fenced(&entry.sender, &entry.conversation)
            }))
            .await;
            for (logged, is_fenced) in batch.into_iter().zip(fenced) {
                match is_fenced {
                    Ok(false) => (logged.answer)(Ok(())),
                    Ok(true) => {
                        let acks = self.clone();
                        self.tasks.run_on(&self.runtime, async move {
                            let decided = acks.decision(&logged.entry).await;
                            (logged.answer)(decided);
                        });
                    }
                    Err(error) => (logged.answer)(Err(error)),
                }
            }
        }
    }

    /// The decision of the store about a message whose sender is being removed.
    async fn decision(&self, entry: &NewEntry) -> Result<(), ApiError> {
        let began = Instant::now();
        loop {
            let request = CheckChangeRequest { app: self.app.clone(), entry: entry.bytes.clone() };
            match self.db.clone().check_change(request).await.map_err(ApiError::from) {
                Ok(checked) => {
                    if checked.into_inner().stored.is_some() {
                        return Ok(());
                    }
                }
                // The removal is stored. If the message came before it, it would be stored as well.
                Err(error) if error.code == ErrorCode::Forbidden => return Err(not_a_member()),
                Err(error) => tracing::debug!(%error, "cannot ask about a message of a fenced sender"),
            }
            if began.elapsed() >= DECISION_TIMEOUT {
                return Err(ApiError::unavailable(
                    "you are being removed from this group, and it is not decided yet whether the message came before; send it \
                     again with the same client_msg_id",
                ));
            }
            sleep(ASK_INTERVAL).await;
        }
    }
}
