use super::*;
use crate::dependencies::Dependencies;
use ::http::{HeaderMap, HeaderValue, Request, Response, header};
use abi::{
    Channel, DEFAULT_APP,
    v1::{
        ConversationSettings, FindBlockersRequest, FindBlockersResponse, HeadsPage, Profiles, PushResponse,
    },
};
use cache::MemoryCache;
use http_body_util::{BodyExt as _, Full};
use kafka_runtime::{Health, OnDelivery, ProduceError, Producer, ProducerRecord};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tonic::body::Body;
use tower::{service_fn, util::BoxCloneSyncService};

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

/// The state in the store, and the pushes.
#[derive(Default)]
struct Stored {
    pinned: bool,
    blocked: bool,
    name: String,
    /// Reads fail.
    is_away: bool,
    pushed: Vec<Receiver>,
}

/// A store and a pusher in one.
#[derive(Clone)]
struct Services {
    stored: Arc<Mutex<Stored>>,
    /// One permit per answer to a write that sets something to true. Such a write takes effect without it.
    answers: Arc<Semaphore>,
    /// One permit per write that has taken effect.
    writes: Arc<Semaphore>,
}

impl Services {
    fn new() -> Self {
        let semaphore = || Arc::new(Semaphore::new(0));
        Self { stored: Arc::default(), answers: semaphore(), writes: semaphore() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Stored) -> T) -> T {
        act(&mut self.stored.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The answer to a call. For a write also the value that it sets.
    fn call(&self, method: &str, request: &[u8]) -> (Vec<u8>, Option<bool>) {
        self.with(|stored| match method {
            "ChangeSettings" => {
                let change = ChangeSettingsRequest::decode(request).unwrap().change.unwrap();
                stored.pinned = change.pinned.unwrap();
                (Vec::new(), Some(stored.pinned))
            }
            "ChangeBlock" => {
                stored.blocked = ChangeBlockRequest::decode(request).unwrap().block.unwrap().blocked;
                (Vec::new(), Some(stored.blocked))
            }
            "ReplaceProfile" => {
                stored.name = ReplaceProfileRequest::decode(request).unwrap().profile.unwrap().name;
                (Vec::new(), Some(stored.name == "true"))
            }
            "HeadsOf" => {
                let settings = ConversationSettings { pinned: stored.pinned, ..Default::default() };
                let head = Head { settings: Some(settings), ..Head::default() }.encode_to_vec().into();
                (HeadsPage { heads: vec![head], ..HeadsPage::default() }.encode_to_vec(), None)
            }
            "FindBlockers" => {
                let mut by = FindBlockersRequest::decode(request).unwrap().by;
                by.retain(|_| stored.blocked);
                (FindBlockersResponse { by }.encode_to_vec(), None)
            }
            "GetProfiles" => {
                let profile = Profile { name: stored.name.clone(), ..Profile::default() };
                (Profiles { profiles: vec![profile] }.encode_to_vec(), None)
            }
            "Push" => {
                stored.pushed.extend(PushRequest::decode(request).unwrap().receivers);
                (PushResponse::default().encode_to_vec(), None)
            }
            method => panic!("an unexpected call: {method}"),
        })
    }

    fn channel(&self) -> Channel {
        let services = self.clone();
        BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
            let services = services.clone();
            async move {
                let path = request.uri().path().to_owned();
                let method = path.rsplit('/').next().unwrap_or_default();
                let body = request.into_body().collect().await?.to_bytes();
                // A message begins with a flag and its length.
                let (answer, written) = services.call(method, &body[5..]);
                services.writes.add_permits(usize::from(written.is_some()));
                if written == Some(true) {
                    services.answers.acquire().await?.forget();
                }
                let is_read = method != "Push" && written.is_none();
                let fails = is_read && services.with(|stored| stored.is_away);
                let code = if fails { tonic::Code::Unavailable } else { tonic::Code::Ok };
                let length = u32::try_from(answer.len())?.to_be_bytes();
                let message = Full::new(Bytes::from([&[0][..], &length, &answer].concat()));
                let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(code as i32))]);
                let body = Body::new(message.with_trailers(std::future::ready(Some(Ok(status)))));
                Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body)?)
            }
        }))
    }

    /// A gateway with these services and a cache.
    fn gateway(&self, cache: &Arc<MemoryCache>) -> Arc<UserState> {
        let dependencies = Dependencies {
            db: self.channel(),
            push: self.channel(),
            gateways: Arc::new(|_| unreachable!("no other gateway is called")),
            cache: cache.clone(),
            producer: Arc::new(NoLog),
        };
        let blocks = Arc::new(Blocks::new(DEFAULT_APP, dependencies.db_client()));
        Arc::new(UserState::new(DEFAULT_APP, &dependencies, blocks))
    }
}

type Change = fn(Arc<UserState>, bool) -> futures_util::future::BoxFuture<'static, Result<(), ApiError>>;

/// Changes of each kind to one of two values.
const CHANGES: [Change; 3] = [
    |gateway, on| {
        Box::pin(async move {
            let conversation = "d:alice:bob".into();
            let change = SetSettings { conversation, pinned: Some(on), ..SetSettings::default() };
            gateway.change_settings("alice", change).await
        })
    },
    |gateway, on| {
        Box::pin(
            async move { gateway.change_block("alice", Block { user: "bob".into(), blocked: on }).await },
        )
    },
    |gateway, on| {
        Box::pin(async move {
            let profile = Profile { name: on.to_string(), ..Profile::default() };
            gateway.replace_profile("alice", profile).await
        })
    },
];

/// The value of an update.
fn value(update: &Bytes) -> bool {
    match Update::decode(update.clone()).unwrap().kind.unwrap() {
        Kind::Settings(changed) => changed.settings.unwrap().pinned,
        Kind::Block(block) => block.blocked,
        Kind::Profile(profile) => profile.name == "true",
        other => panic!("an unexpected update: {other:?}"),
    }
}

#[tokio::test]
async fn p5_of_two_concurrent_changes_the_highest_receiver_seq_carries_the_newer_one() {
    for change in CHANGES {
        let (services, cache) = (Services::new(), Arc::new(MemoryCache::default()));
        let (first, second) = (services.gateway(&cache), services.gateway(&cache));
        let mut slow = JoinSet::new();
        slow.spawn(change(first, true));
        services.writes.acquire().await.unwrap().forget();
        change(second, false).await.unwrap();
        // The change that was stored first is counted and pushed last.
        services.answers.add_permits(1);
        slow.join_next().await.unwrap().unwrap().unwrap();
        let mut pushed = services.with(|stored| std::mem::take(&mut stored.pushed));
        pushed.sort_by_key(|receiver| receiver.receiver_seq.map(|seq| seq.seq));
        assert_eq!(pushed.len(), 2);
        let last = pushed.last().unwrap();
        assert_eq!((last.raised, value(&last.updates[0])), (1, false));
    }
}

#[tokio::test]
async fn p5_a_change_that_can_not_be_read_is_pushed_as_a_notification() {
    for change in CHANGES {
        let (services, cache) = (Services::new(), Arc::new(MemoryCache::default()));
        services.with(|stored| stored.is_away = true);
        services.answers.add_permits(1);
        change(services.gateway(&cache), true).await.unwrap();
        let pushed = services.with(|stored| std::mem::take(&mut stored.pushed));
        assert_eq!((pushed[0].raised, pushed[0].updates.len()), (1, 0));
        assert_eq!(pushed[0].receiver_seq.unwrap().seq, 1);
    }
}
