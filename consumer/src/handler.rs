//! The handler of a batch: decode, save, look up receivers, increment receiver seqs, push.

use crate::{
    Error, MAX_MESSAGE,
    fan_out::{self, FanOut, Recipients, StoredEntry},
    metrics::{self, EntryOutcome},
    segment::{self, LoggedEntry},
    trace,
};
use abi::{
    ApiError, Caller, Channel,
    envelope::{GROUP, is_change_of_entry},
    error::ErrorCode,
    ids::{self, Conversation},
    record,
    v1::{
        Envelope, GetMembersRequest, Members, Outcome as EntryResult, PushRequest, SaveOutcome, SaveRequest,
        SaveResult, SyncRequest, db_service_client::DbServiceClient, push_service_client::PushServiceClient,
    },
};
use bytes::Bytes;
use cache::{Cache, MEMBERS_TTL};
use futures_util::{
    FutureExt as _,
    future::BoxFuture,
    stream::{self, StreamExt as _, TryStreamExt as _},
};
use kafka_runtime::{Batch, HandlerError, Outcome, Record, Rejected};
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
        for segment in segment::split(logged, batch.attempt) {
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
        let Some(app) = segment.first().map(|logged| logged.app.clone()) else { return Ok(()) };
        let spans = trace::start_spans(&segment, batch);
        #[cfg(feature = "defects")]
        self.push_before_save(&app, &segment).await?;
        let mut results = self.save(&app, &segment, &spans).await?;
        let groups = self.groups(&app, &segment, &mut results).await?;
        let oldest = segment.first().map_or(0, |logged| logged.envelope.sent_at_ms);
        let (mut fan_outs, mut outcomes) = (Vec::new(), Vec::new());
        let (mut stored, mut duplicates, mut refused) = (0, 0, 0);
        for (logged, result) in segment.into_iter().zip(results) {
            outcomes.extend(awaited(&logged, &result));
            let is_new = match result.outcome() {
                SaveOutcome::Stored => true,
                SaveOutcome::Duplicate => false,
                SaveOutcome::Rejected => {
                    refused += 1;
                    rejected.extend(reject(&logged, result));
                    continue;
                }
                SaveOutcome::Unspecified => return Err(Error::UnexpectedResponse("an entry has no outcome")),
            };
            if is_new {
                stored += 1
            } else {
                duplicates += 1
            }
            let recipients = match groups.get(&logged.envelope.conversation) {
                Some(members) => Recipients::Group(Arc::clone(members)),
                None => Recipients::Direct,
            };
            let entry = StoredEntry { bytes: logged.bytes, envelope: logged.envelope, result };
            fan_out::add(&mut fan_outs, entry, is_new, &recipients);
        }
        metrics::entries(EntryOutcome::Stored, stored);
        metrics::entries(EntryOutcome::Duplicate, duplicates);
        metrics::entries(EntryOutcome::Rejected, refused);
        for fan_out in fan_outs {
            self.deliver(&app, fan_out, &spans).await?;
        }
        // After the deliveries: who waits for an outcome can then rely on the receiver seqs and the cached members.
        if !outcomes.is_empty() {
            self.push(PushRequest { app, outcomes, ..PushRequest::default() }, &spans).await;
        }
        metrics::delay(now_ms() - oldest);
        spans.finish();
        Ok(())
    }

    /// Saves all entries in one call. If the store refuses that call as invalid, saves each entry in a call of its own, so that
    /// only the invalid ones are rejected.
    async fn save(
        &self,
        app: &str,
        segment: &[LoggedEntry],
        spans: &Spans,
    ) -> Result<Vec<SaveResult>, Error> {
        match self.call_save(app, segment, spans).await {
            Err(Error::Save(error)) if is_permanent(&error) => {}
            result => return result,
        }
        let mut results = Vec::with_capacity(segment.len());
        for logged in segment {
            match self.call_save(app, std::slice::from_ref(logged), spans).await {
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

    async fn call_save(
        &self,
        app: &str,
        segment: &[LoggedEntry],
        spans: &Spans,
    ) -> Result<Vec<SaveResult>, Error> {
        let message_ids = segment.iter().map(|logged| &*logged.envelope.message_id);
        let call_spans = trace::child_spans(spans, "save", message_ids);
        let entries: Vec<Bytes> = segment.iter().map(|logged| logged.bytes.clone()).collect();
        let mut request = with_timeout(SaveRequest { app: app.to_owned(), entries }, STORE_TIMEOUT);
        call_spans.inject(&mut request);
        let saved =
            self.db.clone().save(request).await.map_err(|status| Error::Save(ApiError::of_call(&status)))?;
        call_spans.finish();
        let results = saved.into_inner().results;
        if results.len() != segment.len() {
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
        segment: &[LoggedEntry],
        results: &mut [SaveResult],
    ) -> Result<HashMap<String, Arc<Members>>, Error> {
        let mut groups = HashMap::new();
        let mut unknown = HashSet::new();
        for (LoggedEntry { envelope, .. }, result) in segment.iter().zip(results) {
            let conversation = envelope.conversation.as_str();
            let is_group = matches!(Conversation::parse(conversation), Ok(Conversation::Group(_)));
            if !is_group || result.outcome() == SaveOutcome::Rejected {
                continue;
            }
            match result.members.take() {
                Some(members) => {
                    self.cache.put_members(app, conversation, &members, MEMBERS_TTL).await?;
                    groups.insert(conversation.to_owned(), Arc::new(members));
                }
                None => {
                    unknown.insert(conversation);
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
        let message_ids = push.entries.iter().map(|entry| &*entry.message_id);
        let mut call_spans = trace::child_spans(spans, "push", message_ids);
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
        match decode_record(record) {
            Ok((app, envelope)) => {
                let reply_to = record.headers.iter().find(|(name, _)| name == record::REPLY_TO);
                let reply_to = reply_to.and_then(|(_, value)| std::str::from_utf8(value).ok());
                logged.push(LoggedEntry {
                    index,
                    app,
                    bytes: record.payload.clone(),
                    envelope,
                    reply_to: reply_to.unwrap_or_default().to_owned(),
                });
            }
            Err(error) => rejected.push(Rejected { index, reason: error.message }),
        }
    }
    (logged, rejected)
}

/// The application and the envelope of a record.
fn decode_record(record: &Record) -> Result<(String, Envelope), ApiError> {
    let envelope = record::decode(&record.payload)?;
    match record::split_key(&record.key) {
        Some((app, conversation)) if conversation == envelope.conversation => {
            ids::check_id("app", app)?;
            Ok((app.to_owned(), envelope))
        }
        _ => Err(ApiError::invalid("the key of the record must be APP/CONVERSATION of its entry")),
    }
}

/// The outcome of an entry, if its gateway waits for it.
fn awaited(logged: &LoggedEntry, result: &SaveResult) -> Option<EntryResult> {
    let gateway = Some(logged.reply_to.clone()).filter(|gateway| !gateway.is_empty())?;
    Some(EntryResult {
        gateway,
        message_id: logged.envelope.message_id.clone(),
        result: Some(result.clone()),
    })
}

/// Handles an entry that the store rejected. A change, and a message of someone who was no member at its place in the log, were not
/// acknowledged: they are dropped, and their gateway gets the outcome. Any other entry was acknowledged, so it is dead-lettered for
/// the operators.
fn reject(logged: &LoggedEntry, result: SaveResult) -> Option<Rejected> {
    let (code, reason) = match result.error {
        Some(error) => (error.code(), error.message),
        None => (ErrorCode::Unspecified, "the store rejected the entry".to_owned()),
    };
    let LoggedEntry { index, app, envelope, .. } = logged;
    let Envelope { conversation, message_id, kind, .. } = envelope;
    if kind == GROUP || is_change_of_entry(kind) || code == ErrorCode::Forbidden {
        tracing::info!(app, conversation, message_id, kind, reason, "the store rejected an entry");
        return None;
    }
    Some(Rejected { index: *index, reason })
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
