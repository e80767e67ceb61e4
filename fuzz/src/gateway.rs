//! A gateway whose backend services accept every call with an empty answer, and whose log accepts every record.

use crate::tokens::tokens;
use abi::{
    Channel,
    config::{ByteSize, Config},
    v1::{Member, Members},
};
use async_trait::async_trait;
use bytes::Bytes;
use cache::{FenceState, Groups as _, Logged, MemoryCache};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use kafka_runtime::{Health, OnDelivery, Position, ProduceError, Producer, ProducerRecord};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};
use tonic::body::Body;
use tower::{BoxError, service_fn, util::BoxCloneSyncService};
use ws_gateway::{Dependencies, backend::Backend};

/// The only group. Alice is a member.
pub const GROUP: &str = "g:team";
/// Largest body of a message.
const MAX_BODY: u64 = 256;

/// The gateway and the records it has produced.
pub struct Gateway {
    /// Runs the asynchronous calls.
    pub runtime: Runtime,
    /// See [`Backend`].
    pub backend: Arc<Backend>,
    log: Arc<Log>,
    /// The ids of all messages that were logged.
    logged: Mutex<HashSet<String>>,
}

impl Default for Gateway {
    fn default() -> Self {
        let mut config = Config::default();
        config.gateway.max_body = ByteSize::new(MAX_BODY);
        config.auth.argon2_memory_kib = 8;
        config.auth.argon2_passes = 1;
        let limits = &mut config.limits;
        for limit in [
            &mut limits.sends_per_second,
            &mut limits.send_burst,
            &mut limits.auth_per_second,
            &mut limits.auth_burst,
            &mut limits.account_auth_per_second,
            &mut limits.account_auth_burst,
            &mut limits.connects_per_second,
            &mut limits.connect_burst,
        ] {
            *limit = u32::MAX;
        }
        Self::new(&config).expect("Argon2id accepts these costs")
    }
}

impl Gateway {
    /// Makes a gateway with a configuration. `None` if Argon2id does not accept the costs in it.
    pub fn new(config: &Config) -> Option<Self> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime can be built");
        let cache = Arc::new(MemoryCache::default());
        let members =
            Members { version: 1, members: vec![Member { user: "alice".into(), role: 1, visible_from: 1 }] };
        runtime
            .block_on(cache.put_members(&config.app, GROUP, &members, Duration::from_secs(1 << 30)))
            .expect("the memory cache does not fail");
        runtime.block_on(end_doubt(&cache, &config.app));
        let log = Arc::new(Log::default());
        let services = Dependencies {
            db: store(),
            push: accepting(),
            gateways: Arc::new(|_| accepting()),
            cache,
            producer: log.clone(),
        };
        let entered = runtime.enter();
        let backend = Backend::new(config, tokens(&config.app), "here:0".into(), services).ok()?;
        drop(entered);
        Some(Self { runtime, backend: Arc::new(backend), log, logged: Mutex::default() })
    }

    /// Whether a message was ever logged.
    pub fn has_logged(&self, message_id: &str) -> bool {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner).contains(message_id)
    }

    /// Takes the produced records, checks that a consumer can decode them and that Alice sent them, and returns the ids of their
    /// messages.
    pub fn check_log(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let records = std::mem::take(&mut *self.log.0.lock().unwrap_or_else(PoisonError::into_inner));
        for record in &records {
            let entry = abi::record::decode(&record.payload)
                .expect("a consumer can decode every acknowledged record");
            let key = abi::record::split_key(&record.key);
            assert_eq!(key.map(|(_, conversation)| conversation), Some(entry.conversation.as_str()));
            assert_eq!((entry.sender.as_str(), entry.sender_device.as_str()), ("alice", "phone"));
            assert_eq!(abi::envelope::conversation_seq(&record.payload), Ok(0));
            assert!(!entry.client_msg_id.is_empty());
            ids.push(entry.message_id);
        }
        self.logged.lock().unwrap_or_else(PoisonError::into_inner).extend(ids.iter().cloned());
        ids
    }
}

/// Makes the cache sure that it has lost no fence of partition 0, so that messages to groups are acknowledged without the store.
async fn end_doubt(cache: &MemoryCache, app: &str) {
    for seconds in 1..=2 {
        let message = Logged { partition: 0, checked: Instant::now() + Duration::from_secs(seconds) };
        let state = cache.fence_state(app, GROUP, "alice", message).await;
        let Ok(FenceState::Unknown(doubt)) = state else { unreachable!("the cache is new") };
        cache.message_saved(app, message, doubt).await.expect("the memory cache does not fail");
    }
}

/// A service that answers every call with an empty message.
fn accepting() -> Channel {
    BoxCloneSyncService::new(service_fn(async |_: Request<Body>| answer(EMPTY)))
}

/// A store like [`accepting`], except that it has stored every change already, and that every user exists.
fn store() -> Channel {
    BoxCloneSyncService::new(service_fn(async |request: Request<Body>| {
        let call = request.uri().path().rsplit('/').next();
        answer(if matches!(call, Some("CheckChange" | "GetProfiles")) { ONE } else { EMPTY })
    }))
}

/// gRPC frame: not compressed, length 0.
const EMPTY: &[u8] = &[0; 5];
/// gRPC frame with two bytes: an empty message in field 1.
const ONE: &[u8] = &[0, 0, 0, 0, 2, 0x0a, 0];

fn answer(message: &'static [u8]) -> Result<Response<Body>, BoxError> {
    let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(0))]);
    let message = Full::new(Bytes::from_static(message));
    let body = Body::new(message.with_trailers(std::future::ready(Some(Ok(status)))));
    Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body)?)
}

/// A producer that accepts every record and confirms it at once.
#[derive(Default)]
struct Log(Mutex<Vec<ProducerRecord>>);

#[async_trait]
impl Producer for Log {
    fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        on_delivery(Ok(Position { partition: 0, offset: 0 }));
        Ok(())
    }

    async fn flush(&self, _: Duration) -> Result<(), ProduceError> {
        Ok(())
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}
