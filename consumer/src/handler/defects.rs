//! Deliberate defects that the fault suite must detect. Compiled only with the feature `defects`, which no release has. The
//! environment variable `GODWIT_DEFECT` selects the defect:
//!
//! - `commit-before-save`: the handler reports a batch as complete and saves it 2 s later, and the position of the store is ignored. A
//!   crash in between loses the batch.
//! - `push-before-save`: the handler pushes entries with their probable sequence numbers and saves them afterwards. After 3 to
//!   10 s, the process aborts in between.

use super::{Batch, Error, HandlerError, MessageHandler, Outcome, STORE_TIMEOUT, Spans, with_timeout};
use crate::{
    fan_out::{self, Recipients, StoredEntry},
    segment::LoggedEntry,
};
use abi::{
    ids::Conversation,
    v1::{Entry, Envelope, GetHistory, HistoryRequest, SaveResult},
};
use futures_util::future::BoxFuture;
use prost::Message as _;
use std::{collections::HashMap, sync::OnceLock, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// Delay of a save. Longer than the interval between commits of offsets.
const SAVE_DELAY: Duration = Duration::from_secs(2);
/// Pause between attempts to save a delayed batch.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Most batches whose save is delayed.
const MAX_DELAYED: usize = 1_024;
/// With `push-before-save`, the process aborts after this time and a share of [`ABORT_JITTER`] that depends on the process id.
const ABORT_AFTER: Duration = Duration::from_secs(3);
const ABORT_JITTER: Duration = Duration::from_secs(7);

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

/// Logs that this build has defects.
pub(super) fn warn() {
    tracing::warn!(
        defect = ?defect(),
        "this build has deliberate defects, for tests only: messages can be lost"
    );
}

/// Whether `commit-before-save` is selected.
pub(crate) fn commits_before_save() -> bool {
    defect() == Some(Defect::CommitBeforeSave)
}

/// Reports a batch as complete once it is queued to be saved.
pub(super) fn save_later(
    handler: MessageHandler,
    batch: Batch,
) -> BoxFuture<'static, Result<Outcome, HandlerError>> {
    static QUEUE: OnceLock<mpsc::Sender<(Instant, MessageHandler, Batch)>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (queue, batches) = mpsc::channel(MAX_DELAYED);
        let mut saver = JoinSet::new();
        saver.spawn(save_all(batches));
        // The task runs until the process ends, which loses the queue.
        saver.detach_all();
        queue
    });
    Box::pin(async move {
        let delayed = (Instant::now() + SAVE_DELAY, handler, batch);
        queue.send(delayed).await.map(|()| Outcome::default()).map_err(HandlerError::retry)
    })
}

async fn save_all(mut batches: mpsc::Receiver<(Instant, MessageHandler, Batch)>) {
    while let Some((due, handler, batch)) = batches.recv().await {
        sleep_until(due).await;
        while let Err(error) = handler.handle(batch.clone()).await {
            tracing::warn!(%error, "a batch that was reported as complete is not saved; retrying");
            sleep(RETRY_INTERVAL).await;
        }
    }
}

impl MessageHandler {
    /// With `push-before-save`, delivers entries that are not saved, and may abort the process.
    pub(super) async fn push_before_save(&self, app: &str, segment: &[LoggedEntry]) -> Result<(), Error> {
        if defect() != Some(Defect::PushBeforeSave) || segment.iter().any(LoggedEntry::is_change) {
            return Ok(());
        }
        let mut last = HashMap::new();
        let mut fan_outs = Vec::new();
        for LoggedEntry { bytes, envelope, .. } in segment {
            let conversation = envelope.conversation.as_str();
            let seq = match last.get(conversation) {
                Some(last) => last + 1,
                None => self.last_seq(app, envelope).await + 1,
            };
            last.insert(conversation, seq);
            let recipients = match Conversation::parse(conversation) {
                Ok(Conversation::Group(_)) => {
                    Recipients::Group(self.members(app, conversation.to_owned()).await?.1)
                }
                _ => Recipients::Direct,
            };
            let result = SaveResult { conversation_seq: seq, countable_seq: seq, ..SaveResult::default() };
            let entry = StoredEntry { bytes: bytes.clone(), envelope: envelope.clone(), result };
            fan_out::add(&mut fan_outs, entry, true, &recipients);
        }
        for fan_out in fan_outs {
            self.deliver(app, fan_out, &Spans::default()).await?;
        }
        if is_time_to_abort() {
            tracing::warn!("aborting between push and save");
            std::process::abort();
        }
        Ok(())
    }

    /// The `conversation_seq` of the last saved entry that the sender sees; 0 if there is none.
    async fn last_seq(&self, app: &str, entry: &Envelope) -> u64 {
        let page = GetHistory {
            conversation: entry.conversation.clone(),
            newest: true,
            limit: 1,
            ..GetHistory::default()
        };
        let request = HistoryRequest {
            app: app.to_owned(),
            user: entry.sender.clone(),
            page: Some(page),
            max_bytes: 0,
        };
        let page = self.db.clone().history(with_timeout(request, STORE_TIMEOUT)).await;
        let last = page.ok().and_then(|page| page.into_inner().entries.into_iter().next());
        last.and_then(|last| Entry::decode(last).ok()).map_or(0, |last| last.conversation_seq)
    }
}

fn is_time_to_abort() -> bool {
    static ABORT_AT: OnceLock<Instant> = OnceLock::new();
    // The process id is random enough here and needs no dependency.
    let jitter = ABORT_JITTER * (std::process::id() % 100) / 100;
    Instant::now() >= *ABORT_AT.get_or_init(|| Instant::now() + ABORT_AFTER + jitter)
}
