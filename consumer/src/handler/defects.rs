//! Deliberate defects, to show that the fault suite finds them. Only with the feature `defects`, which no program that is
//! meant for people has; which one there is says the environment variable `GODWIT_DEFECT`.
//!
//! - `commit-before-save`: a batch is called done at once and saved two seconds later; a crash in between loses it.
//! - `push-before-save`: entries are pushed before they are saved, with the numbers that they will probably have, and some
//!   seconds into its life the process ends between the two.

use super::{Batch, Error, HandlerError, MessageHandler, Outcome, SAVE, Spans, within};
use crate::{
    segment::is_change,
    shares::{self, Recipients},
};
use abi::{
    ids::Conversation,
    v1::{Entry, GetHistory, HistoryRequest},
};
use futures_util::future::BoxFuture;
use std::{collections::HashMap, sync::OnceLock, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// A batch is saved so long after it was called done: longer than the time between two commits.
const LATE: Duration = Duration::from_secs(2);
/// Waits between attempts to save what was called done.
const AGAIN: Duration = Duration::from_millis(500);
/// Batches that wait to be saved.
const LATE_BATCHES: usize = 1_024;
/// The process that pushes before it saves lives so long, and then a part of [`MORE_LIFE`] that is its own.
const LIFE: Duration = Duration::from_secs(3);
const MORE_LIFE: Duration = Duration::from_secs(7);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defect {
    CommitBeforeSave,
    PushBeforeSave,
}

fn defect() -> Option<Defect> {
    static DEFECT: OnceLock<Option<Defect>> = OnceLock::new();
    *DEFECT.get_or_init(|| match std::env::var("GODWIT_DEFECT").as_deref() {
        Ok("commit-before-save") => Some(Defect::CommitBeforeSave),
        Ok("push-before-save") => Some(Defect::PushBeforeSave),
        _ => None,
    })
}

/// Says what kind of build this is.
pub(super) fn warn() {
    tracing::warn!(
        defect = ?defect(),
        "THIS BUILD OF THE CONSUMER HAS DELIBERATE DEFECTS, for tests only: messages can be lost"
    );
}

/// Whether the defect is `commit-before-save`.
pub(super) fn commits_before_save() -> bool {
    defect() == Some(Defect::CommitBeforeSave)
}

/// Calls a batch done once it waits to be saved.
pub(super) fn save_later(
    handler: MessageHandler,
    batch: Batch,
) -> BoxFuture<'static, Result<Outcome, HandlerError>> {
    static LATER: OnceLock<mpsc::Sender<(Instant, MessageHandler, Batch)>> = OnceLock::new();
    let later = LATER.get_or_init(|| {
        let (later, batches) = mpsc::channel(LATE_BATCHES);
        let mut saver = JoinSet::new();
        saver.spawn(save_all(batches));
        // It ends with the process, whatever still waits.
        saver.detach_all();
        later
    });
    Box::pin(async move {
        let late = (Instant::now() + LATE, handler, batch);
        later.send(late).await.map(|()| Outcome::default()).map_err(HandlerError::retry)
    })
}

async fn save_all(mut batches: mpsc::Receiver<(Instant, MessageHandler, Batch)>) {
    while let Some((due, handler, batch)) = batches.recv().await {
        sleep_until(due).await;
        while let Err(error) = handler.handle(batch.clone()).await {
            tracing::warn!(%error, "a batch that was called done is not saved; trying again");
            sleep(AGAIN).await;
        }
    }
}

impl MessageHandler {
    /// With `push-before-save`: delivers entries that are not saved, and may not return.
    pub(super) async fn push_before_save(&self, app: &str, entries: &[Entry]) -> Result<(), Error> {
        if defect() != Some(Defect::PushBeforeSave) || entries.iter().any(is_change) {
            return Ok(());
        }
        let mut last = HashMap::new();
        let mut portions = Vec::new();
        for entry in entries {
            let conversation = entry.conversation.as_str();
            let number = match last.get(conversation) {
                Some(last) => last + 1,
                None => self.last_number(app, entry).await + 1,
            };
            last.insert(conversation, number);
            let recipients = match Conversation::parse(conversation) {
                Ok(Conversation::Group(_)) => {
                    Recipients::Group(self.members(app, conversation.to_owned()).await?.1)
                }
                _ => Recipients::Direct,
            };
            let entry = Entry { conversation_seq: number, countable_seq: number, ..entry.clone() };
            shares::add(&mut portions, entry, true, &recipients);
        }
        for portion in portions {
            self.deliver(app, portion, &Spans::default()).await?;
        }
        if is_over() {
            tracing::warn!("the process ends between push and save");
            std::process::abort();
        }
        Ok(())
    }

    /// The number of the last entry of a conversation that is saved, as far as its sender can see; else 0.
    async fn last_number(&self, app: &str, entry: &Entry) -> u64 {
        let page = GetHistory {
            conversation: entry.conversation.clone(),
            newest: true,
            limit: 1,
            ..GetHistory::default()
        };
        let request = HistoryRequest { app: app.to_owned(), user: entry.sender.clone(), page: Some(page) };
        let page = self.db.clone().history(within(request, SAVE)).await;
        page.ok()
            .and_then(|page| page.into_inner().entries.first().map(|last| last.conversation_seq))
            .unwrap_or(0)
    }
}

/// Whether the life of this process is over.
fn is_over() -> bool {
    static END: OnceLock<Instant> = OnceLock::new();
    // The process id is as good as a die here, and needs no dependency.
    let own = MORE_LIFE * (std::process::id() % 100) / 100;
    Instant::now() >= *END.get_or_init(|| Instant::now() + LIFE + own)
}
