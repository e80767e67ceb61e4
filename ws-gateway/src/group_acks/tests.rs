use super::*;
use crate::{blocks::Blocks, dependencies::Dependencies, permissions::Permissions};
use ::http::{HeaderMap, HeaderValue, Request, Response, header};
use abi::{
    Channel, DEFAULT_APP,
    v1::{CheckChangeResponse, EntriesPage, Entry, GroupChange, MembersRemoved, group_change::Change},
};
use bytes::Bytes;
use cache::{Groups as _, MemoryCache};
use http_body_util::{BodyExt as _, Full};
use kafka_runtime::{Health, OnDelivery, ProduceError, Producer, ProducerRecord};
use prost::Message as _;
use tokio::sync::oneshot;
use tonic::body::Body;
use tower::{service_fn, util::BoxCloneSyncService};

const GROUP: &str = "g:1";
const PRODUCE_TIMEOUT: Duration = Duration::from_secs(5);

/// A log that no test writes to.
struct NoLog;

#[tonic::async_trait]
impl Producer for NoLog {
    fn enqueue(&self, _: ProducerRecord, _: OnDelivery) -> Result<(), ProduceError> {
        Err(ProduceError::QueueFull)
    }

    async fn flush(&self, _: Duration) -> Result<(), ProduceError> {
        Ok(())
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}

/// The store's view of every message it is asked about.
#[derive(Clone, Copy, Default)]
struct Store {
    /// It has the message.
    is_saved: bool,
    /// It has an earlier copy of the message.
    is_retry: bool,
    /// The sender is not a member.
    is_removed: bool,
    /// How often it was asked to decide.
    asked: u32,
}

/// A gateway with a store that a test controls.
struct World {
    store: Arc<Mutex<Store>>,
    cache: Arc<MemoryCache>,
    fences: Arc<Fences>,
    acks: Arc<GroupAcks>,
}

impl World {
    fn new() -> Self {
        let (store, cache) = (Arc::new(Mutex::new(Store::default())), Arc::new(MemoryCache::default()));
        let db = channel(store.clone());
        let dependencies = Dependencies {
            db: db.clone(),
            push: db,
            gateways: Arc::new(|_| unreachable!("no other gateway is called")),
            cache: cache.clone(),
            producer: Arc::new(NoLog),
        };
        let db = dependencies.db_client();
        let blocks = Arc::new(Blocks::new(DEFAULT_APP, db.clone()));
        let permissions = Arc::new(Permissions::new(DEFAULT_APP, &dependencies, blocks));
        let fences = Arc::new(Fences::new(DEFAULT_APP, &dependencies, permissions, PRODUCE_TIMEOUT));
        let acks = Arc::new(GroupAcks::new(DEFAULT_APP, db, fences.clone(), RequestTasks::default()));
        Self { store, cache, fences, acks }
    }

    fn set(&self, change: impl FnOnce(&mut Store)) {
        change(&mut self.store.lock().unwrap());
    }

    /// Logs a message, and returns its answer and how often the store was asked.
    async fn send(&self) -> (Result<(), ErrorCode>, u32) {
        self.set(|store| store.asked = 0);
        let (answer, answered) = oneshot::channel();
        let message = Logged { partition: 3, checked: Instant::now() };
        let entry = message_of("bob", 7);
        let new = NewEntry { bytes: entry.encode_to_vec().into(), entry };
        self.acks.logged(new, message, Box::new(move |result| drop(answer.send(result))));
        let answered = answered.await.unwrap().map_err(|error| error.code);
        // A proof follows the answer.
        sleep(Duration::from_millis(5)).await;
        (answered, self.store.lock().unwrap().asked)
    }
}

fn message_of(sender: &str, sent_at_ms: i64) -> Entry {
    Entry {
        conversation: GROUP.into(),
        message_id: "m".into(),
        sender: sender.into(),
        sent_at_ms,
        ..Entry::default()
    }
}

fn channel(store: Arc<Mutex<Store>>) -> Channel {
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let mut store = store.lock().unwrap();
        let path = request.uri().path().to_owned();
        let (answer, code) = match path.rsplit('/').next().unwrap() {
            "CheckChange" => {
                store.asked += 1;
                let result = SaveResult { conversation_seq: 9, ..SaveResult::default() };
                let stored = store.is_saved.then_some(result);
                let code = if store.is_removed { tonic::Code::PermissionDenied } else { tonic::Code::Ok };
                (CheckChangeResponse { stored }.encode_to_vec(), code)
            }
            "History" => {
                let sent_at_ms = if store.is_retry { 6 } else { 7 };
                let entries = vec![message_of("bob", sent_at_ms).encode_to_vec().into()];
                (EntriesPage { entries, more: false }.encode_to_vec(), tonic::Code::Ok)
            }
            method => panic!("an unexpected call: {method}"),
        };
        async move {
            let length = u32::try_from(answer.len())?.to_be_bytes();
            let message = Full::new(Bytes::from([&[0][..], &length, &answer].concat()));
            let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(code as i32))]);
            let body = Body::new(message.with_trailers(std::future::ready(Some(Ok(status)))));
            Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body)?)
        }
    }))
}

#[tokio::test(start_paused = true)]
async fn p1_a_new_gateway_acknowledges_only_what_the_store_has_until_two_messages_are_saved() {
    let world = World::new();
    let (answer, asked) = world.send().await;
    assert_eq!(answer, Err(ErrorCode::Unavailable));
    assert!(asked > 10, "asked {asked} times");
    world.set(|store| store.is_saved = true);
    for _ in 0..2 {
        assert_eq!(world.send().await, (Ok(()), 1));
    }
    world.set(|store| store.is_saved = false);
    assert_eq!(world.send().await, (Ok(()), 0));
}

#[tokio::test(start_paused = true)]
async fn p1_neither_a_refusal_nor_an_earlier_copy_of_a_message_ends_the_doubt() {
    let world = World::new();
    world.set(|store| store.is_removed = true);
    for _ in 0..3 {
        assert_eq!(world.send().await.0, Err(ErrorCode::Forbidden));
    }
    world.set(|store| *store = Store { is_saved: true, is_retry: true, ..Store::default() });
    for _ in 0..3 {
        assert_eq!(world.send().await, (Ok(()), 1));
    }
    world.set(|store| store.is_retry = false);
    for asked in [1, 1, 0, 0] {
        assert_eq!(world.send().await, (Ok(()), asked));
    }
}

#[tokio::test(start_paused = true)]
async fn p1_a_fence_outlives_the_removal_by_the_time_in_which_messages_are_logged() {
    let world = World::new();
    world.set(|store| store.is_saved = true);
    for _ in 0..2 {
        world.send().await.0.unwrap();
    }
    let change = Some(Change::Removed(MembersRemoved { users: vec!["bob".into()] }));
    let removal = Entry {
        conversation: GROUP.into(),
        message_id: "c".into(),
        group_change: Some(GroupChange { change }),
        ..Entry::default()
    };
    let fenced = world.fences.set(&removal).await.unwrap();
    assert_eq!(fenced, ["bob"]);
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(world.send().await, (Ok(()), 1));
    world.fences.release(&removal, &fenced).await;
    sleep(PRODUCE_TIMEOUT).await;
    assert_eq!(world.send().await, (Ok(()), 1));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.send().await, (Ok(()), 0));
    let message = Logged { partition: 3, checked: Instant::now() };
    let state = world.cache.fence_state(DEFAULT_APP, GROUP, "bob", message).await.unwrap();
    assert_eq!(state, FenceState::Clear);
}
