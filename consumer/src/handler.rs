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
        Envelope, GetMembersRequest, Members, Outcome as EntryResult, PushRequest, SaveOutcome, SaveResult,
        db_service_client::DbServiceClient, push_service_client::PushServiceClient,
    },
};
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
pub(crate) mod defects;
mod save;

use save::Part;

/// A call to the store that takes longer fails. The batch is then retried, which is idempotent.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// A push that takes longer is cancelled. Devices find out with their next heartbeat.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);
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

pub(crate) fn with_timeout<T>(message: T, timeout: Duration) -> Request<T> {
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
        async move {
            handler.handle(batch).await.map_err(|error| match error {
                Error::StoreIsBehind(_) => HandlerError::restart(error),
                error => HandlerError::retry(error),
            })
        }
        .boxed()
    }
}

impl MessageHandler {
    async fn handle(&self, batch: Batch) -> Result<Outcome, Error> {
        let began = Instant::now();
        let records = batch.records.len();
        let (logged, mut rejected) = decode(&batch);
        metrics::entries(EntryOutcome::Unreadable, rejected.len() as u64);
        let mut segments = segment::split(logged, batch.attempt).into_iter().peekable();
        let mut part = Part::of(&batch);
        let end = part.range.end;
        if segments.peek().is_none() {
            self.skip(&part).await?;
        }
        // Deliver each segment before saving the next one. If a later step fails, the retry delivers this one as duplicates.
        while let Some(segment) = segments.next() {
            let next = segments.peek().and_then(|next| next.first()).map_or(end, |logged| logged.offset);
            part.range.end = next;
            self.handle_segment(segment, &batch, &part, &mut rejected).await?;
            part.range.start = next;
        }
        metrics::batch(records, began.elapsed());
        Ok(Outcome { rejected })
    }

    async fn handle_segment(
        &self,
        segment: Vec<LoggedEntry>,
        batch: &Batch,
        part: &Part<'_>,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(), Error> {
        let Some(app) = segment.first().map(|logged| logged.app.clone()) else { return Ok(()) };
        let spans = trace::start_spans(&segment, batch);
        #[cfg(feature = "defects")]
        self.push_before_save(&app, &segment).await?;
        let mut results = self.save(&app, &segment, part, &spans).await?;
        let groups = self.groups(&app, &segment, &mut results).await?;
        let oldest = segment.first().map_or(0, |logged| logged.envelope.sent_at_ms);
        let (mut fan_outs, mut outcomes) = (Vec::new(), Vec::new());
        let (mut stored, mut duplicates, mut refused) = (0, 0, 0);
        for (logged, result) in segment.into_iter().zip(results) {
            outcomes.extend(awaited(&logged, &result));
            match result.outcome() {
                SaveOutcome::Stored => stored += 1,
                SaveOutcome::Duplicate => duplicates += 1,
                SaveOutcome::Rejected => {
                    refused += 1;
                    rejected.extend(reject(&logged, result));
                    continue;
                }
                SaveOutcome::Unspecified => return Err(Error::UnexpectedResponse("an entry has no outcome")),
            }
            if !is_delivered(&result) {
                continue;
            }
            let is_new = result.outcome() == SaveOutcome::Stored;
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
            if !is_group || !is_delivered(result) {
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
                    offset: record.offset,
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

/// Whether an entry is counted and pushed. A redelivered record is, because its first delivery may have ended before that. The retry
/// of a sender is not: the first record of the entry is delivered anyway.
fn is_delivered(result: &SaveResult) -> bool {
    match result.outcome() {
        SaveOutcome::Stored => true,
        SaveOutcome::Duplicate => result.is_redelivered,
        SaveOutcome::Rejected | SaveOutcome::Unspecified => false,
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

impl std::fmt::Debug for MessageHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageHandler").finish_non_exhaustive()
    }
}
