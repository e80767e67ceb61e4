//! A gateway whose other services say yes to everything, with an empty answer, and whose log takes everything.

use crate::tokens::tokens;
use abi::{
    Channel,
    config::{ByteSize, Config},
    v1::{Member, Members},
};
use async_trait::async_trait;
use bytes::Bytes;
use cache::{Cache as _, MemoryCache};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use kafka_runtime::{Health, OnDelivery, Position, ProduceError, Producer, ProducerRecord};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tower::{BoxError, service_fn, util::BoxCloneSyncService};
use ws_gateway::{Dependencies, backend::Backend};

/// The one group that there is. Alice is in it.
pub const GROUP: &str = "g:team";
/// Largest body of a message.
const MAX_BODY: u64 = 256;

/// The gateway, and what it has logged.
pub struct Gateway {
    /// Runs what waits.
    pub runtime: Runtime,
    /// See [`Backend`].
    pub backend: Arc<Backend>,
    log: Arc<Log>,
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
        Self::new(&config).expect("these costs are in bounds")
    }
}

impl Gateway {
    /// With a configuration of its own. `None` if it asks for costs of passwords that Argon2id has no room for.
    pub fn new(config: &Config) -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime needs no system");
        let cache = Arc::new(MemoryCache::default());
        let members =
            Members { version: 1, members: vec![Member { user: "alice".into(), role: 1, visible_from: 1 }] };
        runtime
            .block_on(cache.put_members(&config.app, GROUP, &members, Duration::from_secs(1 << 30)))
            .expect("memory is there");
        let log = Arc::new(Log::default());
        let services = Dependencies {
            db: store(),
            push: yes(),
            gateways: Arc::new(|_| yes()),
            cache,
            producer: log.clone(),
        };
        let backend = Backend::new(config, tokens(&config.app), "here:0".into(), services).ok()?;
        Some(Self { runtime, backend: Arc::new(backend), log })
    }

    /// Takes what was logged, checks that a consumer can read it, and that Alice said it.
    pub fn check_log(&self) -> usize {
        let records = std::mem::take(&mut *self.log.0.lock().unwrap_or_else(PoisonError::into_inner));
        for record in &records {
            let entry = abi::record::decode(&record.payload).expect("what is acknowledged can be read");
            assert_eq!(record.key, abi::record::key(&entry.app, &entry.conversation));
            assert_eq!((entry.sender.as_str(), entry.sender_device.as_str()), ("alice", "phone"));
            assert!(entry.conversation_seq == 0 && !entry.client_msg_id.is_empty());
        }
        records.len()
    }
}

/// A service that answers every call with an empty message, all of whose fields are left out.
fn yes() -> Channel {
    BoxCloneSyncService::new(service_fn(async |_: Request<Body>| answer(EMPTY)))
}

/// The same, but every second check of a group's change finds it stored: it is looked for once before it is logged, and once after.
fn store() -> Channel {
    let checks = Arc::new(AtomicUsize::new(0));
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let is_check = request.uri().path().ends_with("/CheckChange");
        let is_second = is_check && checks.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        std::future::ready(answer(if is_second { STORED } else { EMPTY }))
    }))
}

/// Not compressed, and no bytes long.
const EMPTY: &[u8] = &[0; 5];
/// Two bytes long: an empty message in field 1.
const STORED: &[u8] = &[0, 0, 0, 0, 2, 0x0a, 0];

fn answer(message: &'static [u8]) -> Result<Response<Body>, BoxError> {
    let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(0))]);
    let message = Full::new(Bytes::from_static(message));
    let body = Body::new(message.with_trailers(std::future::ready(Some(Ok(status)))));
    Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body)?)
}

/// Takes every record and says so at once.
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
