//! What is done with a batch: decode, save, recipients, raise, push.

use crate::{
    Error, MAX_MESSAGE,
    metrics::{self, Entries},
    segment::{Logged, is_change, segments},
    shares::{self, Portion, Recipients},
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

/// A save that takes longer is tried again: it is idempotent.
const SAVE: Duration = Duration::from_secs(10);
/// A push that takes longer is given up: devices learn by heartbeat.
const PUSH: Duration = Duration::from_secs(5);
/// Less than the time that a commit has.
const SYNC: Duration = Duration::from_secs(4);
/// Groups whose members are looked up at the same time.
const LOOK_UPS: usize = 16;

/// The way from the log to the store and the devices. A clone is the same handler.
#[derive(Clone)]
pub struct MessageHandler {
    db: DbServiceClient<Caller>,
    push: PushServiceClient<Caller>,
    cache: Arc<dyn Cache>,
}

/// The handler over db-service, pusher and cache, wherever they are.
pub fn handler(db: Channel, push: Channel, cache: Arc<dyn Cache>) -> MessageHandler {
    #[cfg(feature = "defects")]
    defects::warn();
    MessageHandler {
        db: DbServiceClient::new(Caller::new(db)).max_decoding_message_size(MAX_MESSAGE),
        push: PushServiceClient::new(Caller::new(push)),
        cache,
    }
}

/// The hook that runs before offsets are committed: all that was saved is made durable.
pub fn before_commit(
    db: Channel,
) -> impl Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static {
    let db = DbServiceClient::new(Caller::new(db));
    move || {
        let mut db = db.clone();
        async move {
            let synced = db.sync(within(SyncRequest {}, SYNC)).await;
            synced.map(drop).map_err(|status| Error::Sync(status.into()))
        }
        .boxed()
    }
}

fn within<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
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
        metrics::entries(Entries::Unreadable, rejected.len() as u64);
        // Each segment is saved and delivered before the next one is saved: what fails later finds duplicates.
        for segment in segments(logged) {
            self.segment(segment, &batch, &mut rejected).await?;
        }
        metrics::batch(records, began.elapsed());
        Ok(Outcome { rejected })
    }

    async fn segment(
        &self,
        segment: Vec<Logged>,
        batch: &Batch,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(), Error> {
        let spans = trace::follow(&segment, batch);
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
        let mut portions = Vec::new();
        let (mut stored, mut duplicates, refused) = (0, 0, rejected.len());
        for ((mut entry, result), index) in entries.into_iter().zip(results).zip(indexes) {
            let is_new = match result.outcome() {
                SaveOutcome::Stored => true,
                SaveOutcome::Duplicate => false,
                SaveOutcome::Rejected => {
                    reject(&entry, result, index, rejected);
                    continue;
                }
                SaveOutcome::Unspecified => return Err(Error::Answer("an entry without an outcome")),
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
            shares::add(&mut portions, entry, is_new, &recipients);
        }
        metrics::entries(Entries::Stored, stored);
        metrics::entries(Entries::Duplicate, duplicates);
        metrics::entries(Entries::Rejected, (rejected.len() - refused) as u64);
        for portion in portions {
            self.deliver(&app, portion, &spans).await?;
        }
        metrics::delay(now_ms() - oldest);
        spans.finish();
        Ok(())
    }

    /// Saves all entries. Should the store find fault with the request as a whole, each is tried by itself, so that one that
    /// it will never take does not stop the others.
    async fn save(&self, entries: &[Entry], spans: &Spans) -> Result<Vec<SaveResult>, Error> {
        match self.save_at_once(entries.to_vec(), spans).await {
            Err(Error::Save(fault)) if is_final(&fault) => {}
            result => return result,
        }
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries {
            match self.save_at_once(vec![entry.clone()], spans).await {
                Ok(saved) => results.extend(saved),
                Err(Error::Save(fault)) if is_final(&fault) => results.push(SaveResult {
                    outcome: SaveOutcome::Rejected.into(),
                    error: Some(fault.into()),
                    ..SaveResult::default()
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(results)
    }

    async fn save_at_once(&self, entries: Vec<Entry>, spans: &Spans) -> Result<Vec<SaveResult>, Error> {
        let count = entries.len();
        let saving = trace::children(spans, "save", &entries);
        let mut request = within(SaveRequest { entries }, SAVE);
        saving.inject(&mut request);
        let saved = self.db.clone().save(request).await.map_err(|status| Error::Save(status.into()))?;
        saving.finish();
        let results = saved.into_inner().results;
        if results.len() != count {
            return Err(Error::Answer("not one result per entry"));
        }
        Ok(results)
    }

    /// The members of every group in a segment that was saved, as they were after that: whoever joined before a message was
    /// numbered is among them. Members after a change are remembered for everybody.
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
        let found: Vec<_> = stream::iter(look_ups).buffer_unordered(LOOK_UPS).try_collect().await?;
        groups.extend(found);
        Ok(groups)
    }

    async fn members(&self, app: &str, conversation: String) -> Result<(String, Arc<Members>), Error> {
        if let Some(members) = self.cache.members(app, &conversation).await? {
            return Ok((conversation, members));
        }
        let request = GetMembersRequest { app: app.to_owned(), conversation: conversation.clone() };
        let members = match self.db.clone().get_members(within(request, SAVE)).await {
            Ok(members) => members.into_inner(),
            Err(status) => match ApiError::from(status) {
                // It was there when the message was saved; nobody is left to tell.
                fault if fault.code == ErrorCode::NotFound => {
                    tracing::warn!(app, conversation, "a group is gone; its message reaches nobody");
                    return Ok((conversation, Arc::default()));
                }
                fault => return Err(Error::Members { conversation, fault }),
            },
        };
        self.cache.put_members(app, &conversation, &members, MEMBERS_TTL).await?;
        Ok((conversation, Arc::new(members)))
    }

    /// Raises the counters of all receivers, now that what they count can be read, and pushes.
    async fn deliver(&self, app: &str, portion: Portion, spans: &Spans) -> Result<(), Error> {
        let raised = portion.finish();
        let users = raised.users();
        if users.is_empty() {
            return Ok(());
        }
        let seqs = self.cache.raise(app, &users).await?;
        self.push(raised.into_push(app, seqs), spans).await;
        Ok(())
    }

    /// A failure is nobody's loss: the counters say that there is something.
    async fn push(&self, push: PushRequest, spans: &Spans) {
        let receivers = push.receivers.len();
        let mut pushing = trace::children(spans, "push", &push.entries);
        pushing.set("godwit.receivers", || trace::count(receivers));
        let mut request = within(push, PUSH);
        pushing.inject(&mut request);
        let result = self.push.clone().push(request).await;
        metrics::push(receivers, result.is_ok());
        match result {
            Ok(_) => pushing.finish(),
            Err(status) => {
                tracing::warn!(receivers, code = ?status.code(), error = status.message(), "push failed")
            }
        }
    }
}

/// Entries, and the records that are none.
fn decode(batch: &Batch) -> (Vec<Logged>, Vec<Rejected>) {
    let mut logged = Vec::with_capacity(batch.records.len());
    let mut rejected = Vec::new();
    for (index, record) in batch.records.iter().enumerate() {
        match abi::record::decode(&record.payload) {
            Ok(entry) => logged.push(Logged { index, size: record.payload.len(), entry }),
            Err(fault) => rejected.push(Rejected { index, reason: fault.message }),
        }
    }
    (logged, rejected)
}

/// A change that the rules don't allow is done with: whoever asked for it was told. A message that can't be stored was
/// acknowledged, so it is kept where people look.
fn reject(entry: &Entry, result: SaveResult, index: usize, rejected: &mut Vec<Rejected>) {
    let reason = result.error.map_or_else(|| "rejected by the store".to_owned(), |error| error.message);
    if is_change(entry) {
        let Entry { app, conversation, message_id, .. } = entry;
        tracing::info!(app, conversation, message_id, reason, "a change of a group was rejected");
        metrics::entries(Entries::Rejected, 1);
    } else {
        rejected.push(Rejected { index, reason });
    }
}

/// Whether the store will never take it, however often it is asked.
fn is_final(fault: &ApiError) -> bool {
    matches!(fault.code, ErrorCode::InvalidRequest | ErrorCode::TooLarge)
}

impl std::fmt::Debug for MessageHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageHandler").finish_non_exhaustive()
    }
}
