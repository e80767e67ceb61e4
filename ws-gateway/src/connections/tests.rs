use super::*;
use crate::{Dependencies, backend::Backend, token::Tokens};
use ::http::{HeaderMap, HeaderValue, Request, Response, header};
use abi::{Channel, config::Config, v1::SigningKey};
use bytes::Bytes;
use cache::{MemoryCache, Routes as _};
use http_body_util::{BodyExt as _, Full};
use kafka_runtime::{Health, OnDelivery, ProduceError, Producer, ProducerRecord};
use std::sync::{Mutex, atomic::AtomicU32};
use tonic::body::Body;
use tower::{service_fn, util::BoxCloneSyncService};

/// When a service answered its calls.
type Answered = Arc<Mutex<Vec<Duration>>>;

/// A log that accepts no record.
struct FullLog;

#[tonic::async_trait]
impl Producer for FullLog {
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

/// A service whose first `failures` calls fail after 2 s each. Later calls succeed immediately; `answered` gets their times.
fn failing(failures: u32, answered: Answered) -> Channel {
    let (calls, began) = (Arc::new(AtomicU32::new(0)), Instant::now());
    BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
        let (calls, answered) = (calls.clone(), answered.clone());
        async move {
            if calls.fetch_add(1, Ordering::Relaxed) < failures {
                tokio::time::sleep(Duration::from_secs(2)).await;
                return Err("no answer".into());
            }
            answered.lock().unwrap().push(began.elapsed());
            let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(0))]);
            // An uncompressed gRPC message of 0 bytes.
            let message = Full::new(Bytes::from_static(&[0; 5]));
            let body = Body::new(message.with_trailers(std::future::ready(Some(Ok(status)))));
            Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body)?)
        }
    }))
}

/// The connections of a gateway, given the number of failing calls of each other gateway, and the calls that those answered.
async fn gateway(others: &[u32]) -> (Arc<Connections>, Vec<Answered>) {
    let (config, cache) = (Config::default(), Arc::new(MemoryCache::default()));
    let answered: Vec<Answered> = others.iter().map(|_| Arc::default()).collect();
    let mut channels = Vec::new();
    for (number, (failures, answered)) in others.iter().zip(&answered).enumerate() {
        let ttl = Duration::from_secs(3_600);
        let (connection, gateway) = (number.to_string(), format!("other:{number}"));
        cache.connect(&config.app, "alice", &connection, &gateway, ttl).await.unwrap();
        channels.push((gateway, failing(*failures, Arc::clone(answered))));
    }
    let services = Dependencies {
        db: failing(u32::MAX, Arc::default()),
        push: failing(u32::MAX, Arc::default()),
        gateways: Arc::new(move |address| {
            channels
                .iter()
                .find(|(gateway, _)| gateway == address)
                .expect("a gateway of the routes")
                .1
                .clone()
        }),
        cache,
        producer: Arc::new(FullLog),
    };
    let key = SigningKey { id: "k".into(), secret: vec![7; 32].into() };
    let tokens = Tokens::new(config.app.clone(), config.auth.access_token_life, &[key]).unwrap();
    let backend = Backend::new(&config, tokens, "here:0".into(), services).unwrap();
    (backend.connections().clone(), answered)
}

#[tokio::test(start_paused = true)]
async fn p8_a_log_out_reaches_an_unavailable_gateway_later() {
    let (connections, answered) = gateway(&[3, 0]).await;
    connections.disconnect("alice", "s").await;
    assert_eq!((answered[0].lock().unwrap().len(), answered[1].lock().unwrap().len()), (0, 1));
    connections.request_tasks.finish().await;
    assert_eq!(answered[0].lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn p7_calls_to_an_unavailable_gateway_end_after_its_connections_have_rechecked() {
    let (connections, _) = gateway(&[u32::MAX]).await;
    let began = Instant::now();
    connections.disconnect("alice", "s").await;
    connections.request_tasks.finish().await;
    let (recheck, last_call) = (connections.settings.recheck, MAX_PAUSE + Duration::from_secs(3));
    assert!(began.elapsed() >= recheck && began.elapsed() < recheck + last_call, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn p9_dead_gateways_are_called_concurrently() {
    let (connections, answered) = gateway(&[u32::MAX, u32::MAX, u32::MAX, 0]).await;
    let identity = Identity { user: "alice".into(), device: "phone".into(), session: "s".into() };
    let began = Instant::now();
    assert!(!connections.disconnect_elsewhere(&identity, 1).await);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(answered[3].lock().unwrap().len(), 1);
}
