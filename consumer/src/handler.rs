//! The handler of a batch: decode, save, look up receivers, increment receiver seqs, push.

use crate::{
    Error, MAX_MESSAGE,
    fan_out::{self, FanOut, Recipients},
    metrics::{self, EntryOutcome},
    segment::{self, LoggedEntry, is_change},
    trace,
};
use abi::{
    ApiError, Caller, Channel,
    error::ErrorCode,
    ids::Conversation,
    v1::{
        Entry, GetMembersRequest, Members, PushRequest, SaveOutcome, SaveRequest, SaveResult, SyncRequest,
        db_service_client::DbServiceClient, push_service_client::PushServiceClient,
    },
};
use cache::{Cache, MEMBERS_TTL};
use futures_util::{
    FutureExt as _,
    future::BoxFuture,
    stream::{self, StreamExt as _, TryStreamExt as _},
};
use kafka_runtime::{Batch, HandlerError, Outcome, Rejected};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tonic::Request;
use tower::Service;
use utils::{clock::now_ms, trace::Spans};

#[cfg(feature = "defects")]
mod defects;

/// A call to the store that takes longer fails. The batch is then retried, which is idempotent.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// A push that takes longer is cancelled. Devices find out with their next heartbeat.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than the timeout of a commit of offsets.
const SYNC_TIMEOUT: Duration = Duration::from_secs(4);
/// Most concurrent look-ups of members.
const MAX_LOOK_UPS: usize = 16;

/// Stores and pushes the entries of the log. Cheap to clone.
#[derive(Clone)]
pub struct MessageHandler {
    db: DbServiceClient<Caller>,
    push: PushServiceClient<Caller>,
    cache: Arc<dyn Cache>,
}

/// A handler with channels to db-service and pusher, and a cache.
pub fn handler(db: Channel, push: Channel, cache: Arc<dyn Cache>) -> MessageHandler {
    #[cfg(feature = "defects")]
    defects::warn();
    MessageHandler {
        db: DbServiceClient::new(Caller::new(db)).max_decoding_message_size(MAX_MESSAGE),
        push: PushServiceClient::new(Caller::new(push)),
        cache,
    }
}

/// The hook to run before offsets are committed. It makes all saved entries durable.
pub fn before_commit(
    db: Channel,
) -> impl Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static {
    let db = DbServiceClient::new(Caller::new(db));
    move || {
        let mut db = db.clone();
        async move {
            let synced = db.sync(with_timeout(SyncRequest {}, SYNC_TIMEOUT)).await;
            synced.map(drop).map_err(|status| Error::Sync(ApiError::of_call(&status)))
        }
        .boxed()
    }
}

fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

impl Service<Batch> for MessageHandler {
    type Response = Outcome;
    type Error = HandlerError;
    type Future = BoxFuture<'static, Result<Outcome, HandlerError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, batch: Batch) -> Self::Future {
        let handler = self.clone();
        #[cfg(feature = "defects")]
        if defects::commits_before_save() {
            return defects::save_later(handler, batch);
        }
        async move { handler.handle(batch).await.map_err(HandlerError::retry) }.boxed()
    }
}

impl MessageHandler {
    async fn handle(&self, batch: Batch) -> Result<Outcome, Error> {
        let began = Instant::now();
        let records = batch.records.len();
        let (logged, mut rejected) = decode(&batch);
        metrics::entries(EntryOutcome::Unreadable, rejected.len() as u64);
        // Deliver each segment before saving the next one. If a later step fails, the retry delivers this one as duplicates.
        for segment in segment::split(logged) {
            self.handle_segment(segment, &batch, &mut rejected).await?;
        }
        metrics::batch(records, began.elapsed());
        Ok(Outcome { rejected })
    }

    async fn handle_segment(
        &self,
        segment: Vec<LoggedEntry>,
        batch: &Batch,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(), Error> {
        let spans = trace::start_spans(&segment, batch);
        let mut indexes = Vec::with_capacity(segment.len());
        let mut entries = Vec::with_capacity(segment.len());
        for logged in segment {
            indexes.push(logged.index);
            entries.push(logged.entry);
        }
        let Some(app) = entries.first().map(|entry| entry.app.clone()) else { return Ok(()) };
        #[cfg(feature = "defects")]
        self.push_before_save(&app, &entries).await?;
        let mut results = self.save(&entries, &spans).await?;
        let groups = self.groups(&app, &entries, &mut results).await?;
        let oldest = entries.first().map_or(0, |entry| entry.sent_at_ms);
        let mut fan_outs = Vec::new();
        let (mut stored, mut duplicates, rejected_before) = (0, 0, rejected.len());
        for ((mut entry, result), index) in entries.into_iter().zip(results).zip(indexes) {
            let is_new = match result.outcome() {
                SaveOutcome::Stored => true,
                SaveOutcome::Duplicate => false,
                SaveOutcome::Rejected => {
                    reject(&entry, result, index, rejected);
                    continue;
                }
                SaveOutcome::Unspecified => return Err(Error::UnexpectedResponse("an entry has no outcome")),
            };
            if is_new {
                stored += 1
            } else {
                duplicates += 1
            }
            entry.conversation_seq = result.conversation_seq;
            entry.countable_seq = result.countable_seq;
            let recipients = match groups.get(&entry.conversation) {
                Some(members) => Recipients::Group(Arc::clone(members)),
                None => Recipients::Direct,
            };
            fan_out::add(&mut fan_outs, entry, is_new, &recipients);
        }
        metrics::entries(EntryOutcome::Stored, stored);
        metrics::entries(EntryOutcome::Duplicate, duplicates);
        metrics::entries(EntryOutcome::Rejected, (rejected.len() - rejected_before) as u64);
        for fan_out in fan_outs {
            self.deliver(&app, fan_out, &spans).await?;
        }
        metrics::delay(now_ms() - oldest);
        spans.finish();
        Ok(())
    }

    /// Saves all entries in one call. If the store refuses that call as invalid, saves each entry in a call of its own, so that
    /// only the invalid ones are rejected.
    async fn save(&self, entries: &[Entry], spans: &Spans) -> Result<Vec<SaveResult>, Error> {
        match self.call_save(entries.to_vec(), spans).await {
            Err(Error::Save(error)) if is_permanent(&error) => {}
            result => return result,
        }
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries {
            match self.call_save(vec![entry.clone()], spans).await {
                Ok(saved) => results.extend(saved),
                Err(Error::Save(error)) if is_permanent(&error) => results.push(SaveResult {
                    outcome: SaveOutcome::Rejected.into(),
                    error: Some(error.into()),
                    ..SaveResult::default()
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    async fn call_save(&self, entries: Vec<Entry>, spans: &Spans) -> Result<Vec<SaveResult>, Error> {
        let count = entries.len();
        let call_spans = trace::child_spans(spans, "save", &entries);
        let mut request = with_timeout(SaveRequest { entries }, STORE_TIMEOUT);
        call_spans.inject(&mut request);
        let saved =
            self.db.clone().save(request).await.map_err(|status| Error::Save(ApiError::of_call(&status)))?;
        call_spans.finish();
        let results = saved.into_inner().results;
        if results.len() != count {
            return Err(Error::UnexpectedResponse(
                "the number of results differs from the number of entries",
            ));
        }
        Ok(results)
    }

    /// Looks up the members of the groups in a segment after it was saved, so that a user who joined before a message was numbered
    /// is included. Writes the members that a group change returned to the cache.
    async fn groups(
        &self,
        app: &str,
        entries: &[Entry],
        results: &mut [SaveResult],
    ) -> Result<HashMap<String, Arc<Members>>, Error> {
        let mut groups = HashMap::new();
        let mut unknown = HashSet::new();
        for (entry, result) in entries.iter().zip(results) {
            let is_group = matches!(Conversation::parse(&entry.conversation), Ok(Conversation::Group(_)));
            if !is_group || result.outcome() == SaveOutcome::Rejected {
                continue;
            }
            match result.members.take() {
                Some(members) => {
                    self.cache.put_members(app, &entry.conversation, &members, MEMBERS_TTL).await?;
                    groups.insert(entry.conversation.clone(), Arc::new(members));
                }
                None => {
                    unknown.insert(entry.conversation.as_str());
                }
            }
        }
        let look_ups = unknown.into_iter().filter(|group| !groups.contains_key(*group)).map(str::to_owned);
        let look_ups: Vec<_> = look_ups.map(|group| self.members(app, group).boxed()).collect();
        let found: Vec<_> = stream::iter(look_ups).buffer_unordered(MAX_LOOK_UPS).try_collect().await?;
        groups.extend(found);
        Ok(groups)
    }

    async fn members(&self, app: &str, conversation: String) -> Result<(String, Arc<Members>), Error> {
        if let Some(members) = self.cache.members(app, &conversation).await? {
            return Ok((conversation, members));
        }
        let request = GetMembersRequest { app: app.to_owned(), conversation: conversation.clone() };
        let members = match self.db.clone().get_members(with_timeout(request, STORE_TIMEOUT)).await {
            Ok(members) => members.into_inner(),
            Err(status) => match ApiError::of_call(&status) {
                // The group existed when the message was saved. No member is left to push to.
                error if error.code == ErrorCode::NotFound => {
                    tracing::warn!(app, conversation, "a group no longer exists; its message is not pushed");
                    return Ok((conversation, Arc::default()));
                }
                error => return Err(Error::Members { conversation, error }),
            },
        };
        self.cache.put_members(app, &conversation, &members, MEMBERS_TTL).await?;
        Ok((conversation, Arc::new(members)))
    }

    /// Increments the receiver seqs, and pushes. The entries must be saved.
    async fn deliver(&self, app: &str, fan_out: FanOut, spans: &Spans) -> Result<(), Error> {
        let fan_out = fan_out.finish();
        let increments = fan_out.increments();
        if increments.is_empty() {
            return Ok(());
        }
        let seqs = self.cache.increment(app, &increments).await?;
        self.push(fan_out.into_push(app, seqs), spans).await;
        Ok(())
    }

    /// A failure is only logged: the receiver seqs tell the devices that they have to sync.
    async fn push(&self, push: PushRequest, spans: &Spans) {
        let receivers = push.receivers.len();
        let mut call_spans = trace::child_spans(spans, "push", &push.entries);
        call_spans.set("godwit.receivers", || trace::attribute(receivers));
        let mut request = with_timeout(push, PUSH_TIMEOUT);
        call_spans.inject(&mut request);
        let result = self.push.clone().push(request).await;
        metrics::push(receivers, result.is_ok());
        match result {
            Ok(_) => call_spans.finish(),
            Err(status) => {
                tracing::warn!(receivers, code = ?status.code(), error = status.message(), "a push failed")
            }
        }
    }
}

/// Decodes the records. Rejects those that are not entries.
fn decode(batch: &Batch) -> (Vec<LoggedEntry>, Vec<Rejected>) {
    let mut logged = Vec::with_capacity(batch.records.len());
    let mut rejected = Vec::new();
    for (index, record) in batch.records.iter().enumerate() {
        match abi::record::decode(&record.payload) {
            Ok(entry) => logged.push(LoggedEntry { index, size: record.payload.len(), entry }),
            Err(error) => rejected.push(Rejected { index, reason: error.message }),
        }
    }
    (logged, rejected)
}

/// A forbidden group change is dropped: its sender got the error. A message was acknowledged, so it is dead-lettered for the
/// operators.
fn reject(entry: &Entry, result: SaveResult, index: usize, rejected: &mut Vec<Rejected>) {
    let reason =
        result.error.map_or_else(|| "the store rejected the entry".to_owned(), |error| error.message);
    if is_change(entry) {
        let Entry { app, conversation, message_id, .. } = entry;
        tracing::info!(app, conversation, message_id, reason, "the store rejected a group change");
        metrics::entries(EntryOutcome::Rejected, 1);
    } else {
        rejected.push(Rejected { index, reason });
    }
}

/// Whether a retry can't succeed.
fn is_permanent(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::InvalidRequest | ErrorCode::TooLarge)
}

impl std::fmt::Debug for MessageHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageHandler").finish_non_exhaustive()
    }
}
