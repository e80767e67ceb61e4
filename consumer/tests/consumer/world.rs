//! A handler with its dependencies.

use abi::{
    envelope::{GROUP as GROUP_KIND, MESSAGE},
    v1::{
        Content, CreateUserRequest, Entry, GetHistory, GroupChange, GroupCreated, HistoryRequest, MemberLeft,
        MembersAdded, MembersRemoved, PushRequest, PushResponse, PushedEntry, ReceiverSeq, SaveRequest, User,
        content::Body,
        db_service_client::DbServiceClient,
        group_change::Change,
        push_service_server::{PushService, PushServiceServer},
    },
};
use cache::{Cache, Counters as _, MemoryCache};
use consumer::MessageHandler;
use http_body_util::BodyExt as _;
use kafka_runtime::{Batch, HandlerError, Outcome, Record};
use prost::Message as _;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, service::Routes};
use tower::{Service as _, ServiceExt as _};

pub(crate) const TOPIC: &str = "godwit.messages";
pub(crate) const GROUP: &str = "g:team";
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A handler, an embedded store whose calls can fail, a cache, and a fake pusher.
pub(crate) struct World {
    pub(crate) db: abi::Channel,
    pub(crate) cache: Arc<MemoryCache>,
    pub(crate) handler: MessageHandler,
    pub(crate) faults: Faults,
    pushes: FakePusher,
    store: db_service::Server,
    _folder: tempfile::TempDir,
}

/// Counts the calls of the store and injects failures.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Mutex<HashMap<String, Method>>>);

#[derive(Default)]
struct Method {
    calls: u32,
    fails: Option<Code>,
    /// `Save` exceeds its deadline with more entries.
    most_entries: Option<usize>,
}

impl Faults {
    /// Makes the calls of a method fail with this code, or succeed.
    pub(crate) fn set(&self, method: &str, code: Option<Code>) {
        self.lock().entry(method.to_owned()).or_default().fails = code;
    }

    /// Makes `Save` exceed its deadline with more entries than this.
    pub(crate) fn limit_saves(&self, entries: usize) {
        self.lock().entry("Save".to_owned()).or_default().most_entries = Some(entries);
    }

    fn is_too_slow(&self, method: &str, body: &[u8]) -> bool {
        let most = self.lock().get(method).and_then(|method| method.most_entries);
        // A message begins with a flag and its length.
        most.is_some_and(|most| SaveRequest::decode(&body[5..]).unwrap().entries.len() > most)
    }

    /// The number of calls of a method.
    pub(crate) fn calls(&self, method: &str) -> u32 {
        self.lock().get(method).map_or(0, |method| method.calls)
    }

    fn count_call(&self, method: &str) -> Option<Code> {
        let mut methods = self.lock();
        let method = methods.entry(method.to_owned()).or_default();
        method.calls += 1;
        method.fails
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Method>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Injects the failures into a channel. A request that contains "poison" is always refused as invalid.
    fn wrap(&self, channel: abi::Channel) -> abi::Channel {
        let faults = self.clone();
        tower::util::BoxCloneSyncService::new(tower::service_fn(
            move |request: http::Request<tonic::body::Body>| {
                let (faults, mut channel) = (faults.clone(), channel.clone());
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let method = parts.uri.path().rsplit('/').next().unwrap_or_default();
                    if let Some(code) = faults.count_call(method) {
                        return Ok(Status::new(code, "a test").into_http());
                    }
                    if faults.is_too_slow(method, &body) {
                        return Ok(Status::deadline_exceeded("a test").into_http());
                    }
                    if body.windows(6).any(|window| window == b"poison") {
                        return Ok(Status::invalid_argument("poison").into_http());
                    }
                    let body = tonic::body::Body::new(http_body_util::Full::new(body));
                    channel.ready().await?.call(http::Request::from_parts(parts, body)).await
                }
            },
        ))
    }
}

/// A fake pusher that records the pushes.
#[derive(Clone, Default)]
struct FakePusher(Arc<Mutex<(Vec<PushRequest>, Option<Code>)>>);

#[tonic::async_trait]
impl PushService for FakePusher {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let mut state = self.0.lock().unwrap();
        state.0.push(request.into_inner());
        match state.1 {
            Some(code) => Err(Status::new(code, "a test")),
            None => Ok(Response::new(PushResponse::default())),
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = db_service::embedded(folder.path(), &abi::config::Config::default()).unwrap().server();
        let faults = Faults::default();
        let db = faults.wrap(utils::grpc::local(Routes::new(store.clone()), CALL_TIMEOUT));
        let cache = Arc::new(MemoryCache::default());
        let pushes = FakePusher::default();
        let handler = Self::handler(&db, &pushes, Arc::clone(&cache) as Arc<dyn Cache>);
        Self { db, cache, handler, faults, pushes, store, _folder: folder }
    }

    /// A world with accounts of bob and carol, so that they can be added to groups.
    pub(crate) async fn with_friends() -> Self {
        let world = Self::new();
        for user in ["bob", "carol"] {
            let user = User { app: "app".into(), user: user.into(), password_hash: "$x$".into() };
            let mut db = DbServiceClient::new(abi::Caller::new(world.db.clone()));
            db.create_user(CreateUserRequest { user: Some(user) }).await.unwrap();
        }
        world
    }

    /// Serves the store and the fake pusher on sockets until the tasks are dropped. Returns the addresses.
    pub(crate) async fn serve(&self) -> ([String; 2], JoinSet<()>) {
        let routes =
            [Routes::new(self.store.clone()), Routes::new(PushServiceServer::new(self.pushes.clone()))];
        let mut servers = JoinSet::new();
        let mut addresses = Vec::new();
        for routes in routes {
            let listener = utils::listener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap().to_string());
            let server = utils::grpc::Server::new(routes, &[], utils::Readiness::new());
            servers.spawn(async move { server.serve(listener, CancellationToken::new()).await.unwrap() });
        }
        (addresses.try_into().unwrap(), servers)
    }

    /// A handler with another cache.
    pub(crate) fn handler_with(&self, cache: Arc<dyn Cache>) -> MessageHandler {
        Self::handler(&self.db, &self.pushes, cache)
    }

    fn handler(db: &abi::Channel, pushes: &FakePusher, cache: Arc<dyn Cache>) -> MessageHandler {
        let server = PushServiceServer::new(pushes.clone()).max_decoding_message_size(32 << 20);
        consumer::handler(db.clone(), utils::grpc::local(Routes::new(server), CALL_TIMEOUT), cache)
    }

    pub(crate) fn fail_pushes(&self, code: Option<Code>) {
        self.pushes.0.lock().unwrap().1 = code;
    }

    /// Handles entries as one batch.
    pub(crate) async fn handle(&self, entries: &[Entry]) -> Result<Outcome, HandlerError> {
        handle(&self.handler, &entries.iter().map(record).collect::<Vec<_>>()).await
    }

    /// Handles entries as one batch of a partition, from an offset on. All calls have the same partition.
    pub(crate) async fn handle_from(&self, first: i64, entries: &[Entry]) -> Result<Outcome, HandlerError> {
        let records: Vec<_> = entries.iter().map(record).collect();
        handle_at(&self.handler, 0, first, &records).await
    }

    /// The pushes since the last call.
    pub(crate) fn pushes(&self) -> Vec<PushRequest> {
        std::mem::take(&mut self.pushes.0.lock().unwrap().0)
    }

    /// The only push since the last call, in the format of [`lines`].
    pub(crate) fn pushed(&self) -> Vec<String> {
        let pushes = self.pushes();
        assert!(pushes.len() <= 1, "more than one push");
        pushes.iter().flat_map(lines).collect()
    }

    /// The entries of a conversation that a user can read, ascending.
    pub(crate) async fn history(&self, user: &str, conversation: &str) -> Vec<Entry> {
        let page = GetHistory { conversation: conversation.into(), limit: 500, ..GetHistory::default() };
        let request = HistoryRequest { app: "app".into(), user: user.into(), page: Some(page), max_bytes: 0 };
        let mut db = DbServiceClient::new(abi::Caller::new(self.db.clone()));
        let page = db.history(request).await.unwrap().into_inner();
        page.entries.into_iter().map(|entry| Entry::decode(entry).unwrap()).collect()
    }

    /// The receiver seq of a user.
    pub(crate) async fn seq(&self, user: &str) -> u64 {
        self.cache.changes("app", user, ReceiverSeq::default()).await.unwrap().now.seq
    }
}

/// The record of an entry of the application `app`.
pub(crate) fn record(entry: &Entry) -> Record {
    Record {
        topic: TOPIC.into(),
        partition: 0,
        offset: 0,
        key: abi::record::key("app", &entry.conversation),
        payload: entry.encode_to_vec().into(),
        headers: Vec::new(),
        timestamp_ms: 0,
    }
}

/// Handles records as one batch of a partition of its own.
pub(crate) async fn handle(handler: &MessageHandler, records: &[Record]) -> Result<Outcome, HandlerError> {
    static PARTITIONS: AtomicI32 = AtomicI32::new(1_000);
    handle_at(handler, PARTITIONS.fetch_add(1, Ordering::Relaxed), 0, records).await
}

/// Handles records as one batch of a partition. `first`: offset of the first one.
pub(crate) async fn handle_at(
    handler: &MessageHandler,
    partition: i32,
    first: i64,
    records: &[Record],
) -> Result<Outcome, HandlerError> {
    handle_batch(handler, batch(partition, first, records, 1)).await
}

/// A batch of a partition, in an attempt with this number. `first`: offset of its first record.
pub(crate) fn batch(partition: i32, first: i64, records: &[Record], attempt: u32) -> Batch {
    let numbered = |(offset, record): (i64, &Record)| Record { offset, partition, ..record.clone() };
    let records = (first..).zip(records).map(numbered).collect();
    Batch { topic: TOPIC.into(), partition, records, follows: Some(first), attempt }
}

pub(crate) async fn handle_batch(handler: &MessageHandler, batch: Batch) -> Result<Outcome, HandlerError> {
    handler.clone().ready().await?.call(batch).await
}

/// One line per receiver, ordered by user id: the user, the receiver seq, its increment, the entries.
pub(crate) fn lines(push: &PushRequest) -> Vec<String> {
    assert_eq!(push.app, "app");
    let mut lines: Vec<_> = push
        .receivers
        .iter()
        .map(|receiver| {
            assert!(receiver.receiver_seq.unwrap().epoch != 0);
            let entries = receiver.entries.iter().map(|index| text(&push.entries[*index as usize]));
            let entries: Vec<_> = entries.collect();
            let seq = receiver.receiver_seq.unwrap().seq;
            format!("{} {seq} +{} {}", receiver.user, receiver.raised, entries.join(" "))
                .trim_end()
                .to_owned()
        })
        .collect();
    lines.sort();
    lines
}

fn text(pushed: &PushedEntry) -> String {
    let entry = Entry::decode(pushed.entry.clone()).unwrap();
    let change = entry.group_change.and_then(|change| change.change);
    let content = match (entry.content.and_then(|content| content.body), change) {
        (Some(Body::Text(text)), _) => text,
        (_, Some(Change::Created(_))) => "created".to_owned(),
        (_, Some(Change::Added(_))) => "added".to_owned(),
        (_, Some(Change::Removed(_))) => "removed".to_owned(),
        (_, Some(Change::Left(_))) => "left".to_owned(),
        _ => "?".to_owned(),
    };
    format!("{content}#{}", entry.conversation_seq)
}

fn entry(conversation: &str, sender: &str, id: &str, kind: &str) -> Entry {
    Entry {
        conversation: conversation.into(),
        message_id: abi::ids::message("app", conversation, sender, "phone", id),
        sender: sender.into(),
        sender_device: "phone".into(),
        client_msg_id: id.into(),
        sent_at_ms: 1,
        kind: kind.into(),
        ..Entry::default()
    }
}

/// A message whose text is also its id.
pub(crate) fn message(conversation: &str, sender: &str, text: &str) -> Entry {
    let content = Content { content_type: String::new(), body: Some(Body::Text(text.into())) };
    Entry { countable: true, content: Some(content), ..entry(conversation, sender, text, MESSAGE) }
}

fn change(sender: &str, id: &str, change: Change) -> Entry {
    let group_change = Some(GroupChange { change: Some(change) });
    Entry { group_change, ..entry(GROUP, sender, id, GROUP_KIND) }
}

fn owned(users: &[&str]) -> Vec<String> {
    users.iter().map(|user| (*user).to_owned()).collect()
}

/// The creation of the group by alice.
pub(crate) fn created(members: &[&str]) -> Entry {
    let created = GroupCreated { name: "Team".into(), members: owned(members), history: 1 };
    change("alice", "create", Change::Created(created))
}

pub(crate) fn added(users: &[&str]) -> Entry {
    change("alice", &format!("add-{}", users.join("-")), Change::Added(MembersAdded { users: owned(users) }))
}

pub(crate) fn removed(users: &[&str]) -> Entry {
    change(
        "alice",
        &format!("remove-{}", users.join("-")),
        Change::Removed(MembersRemoved { users: owned(users) }),
    )
}

pub(crate) fn left(user: &str) -> Entry {
    change(user, "leave", Change::Left(MemberLeft {}))
}
