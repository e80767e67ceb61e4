use super::*;
use crate::{Dependencies, token::Tokens};
use ::http::{HeaderMap, HeaderValue, Request, Response, header};
use abi::{Channel, config::Config, v1::SigningKey};
use bytes::Bytes;
use cache::{Cache as _, MemoryCache};
use http_body_util::{BodyExt as _, Full};
use kafka_runtime::{Health, OnDelivery, ProduceError, Producer, ProducerRecord};
use std::sync::{Mutex, atomic::AtomicU32};
use tonic::body::Body;
use tower::{service_fn, util::BoxCloneSyncService};

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

/// A service that takes two seconds not to answer, so many times, and then says yes at once.
fn away(times: u32, told: Arc<Mutex<Vec<Duration>>>) -> Channel {
    let (asked, begun) = (Arc::new(AtomicU32::new(0)), Instant::now());
    BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
        let (asked, told) = (asked.clone(), told.clone());
        async move {
            if asked.fetch_add(1, Ordering::Relaxed) < times {
                tokio::time::sleep(Duration::from_secs(2)).await;
                return Err("nobody is there".into());
            }
            told.lock().unwrap().push(begun.elapsed());
            let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(0))]);
            // Not compressed, and no bytes long.
            let message = Full::new(Bytes::from_static(&[0; 5]));
            let body = Body::new(message.with_trailers(std::future::ready(Some(Ok(status)))));
            Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body)?)
        }
    }))
}

/// A gateway beside others, of which each does not answer so many times, and when they were told something.
async fn gateway(others: &[u32]) -> (Arc<Backend>, Vec<Arc<Mutex<Vec<Duration>>>>) {
    let (config, cache) = (Config::default(), Arc::new(MemoryCache::default()));
    let told: Vec<_> = others.iter().map(|_| Arc::default()).collect();
    let mut channels = Vec::new();
    for (number, (times, told)) in others.iter().zip(&told).enumerate() {
        let life = Duration::from_secs(3_600);
        let (connection, gateway) = (number.to_string(), format!("other:{number}"));
        cache.connect(&config.app, "alice", &connection, &gateway, life).await.unwrap();
        channels.push((gateway, away(*times, Arc::clone(told))));
    }
    let services = Dependencies {
        db: away(u32::MAX, Arc::default()),
        push: away(u32::MAX, Arc::default()),
        gateways: Arc::new(move |address| {
            channels
                .iter()
                .find(|(gateway, _)| gateway == address)
                .expect("a gateway of the routes")
                .1
                .clone()
        }),
        cache,
        producer: Arc::new(NoLog),
    };
    let key = SigningKey { id: "k".into(), secret: vec![7; 32].into() };
    let tokens = Tokens::new(config.app.clone(), config.auth.access_token_life, &[key]).unwrap();
    (Arc::new(Backend::new(&config, tokens, "here:0".into(), services).unwrap()), told)
}

#[tokio::test(start_paused = true)]
async fn p8_a_gateway_that_was_away_is_told_of_a_log_out_later() {
    let (backend, told) = gateway(&[3, 0]).await;
    backend.disconnect("alice", "s").await;
    assert_eq!((told[0].lock().unwrap().len(), told[1].lock().unwrap().len()), (0, 1));
    backend.tasks.close();
    backend.tasks.wait().await;
    assert_eq!(told[0].lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn p7_who_is_not_reached_is_given_up_when_every_connection_has_asked_by_itself() {
    let (backend, _) = gateway(&[u32::MAX]).await;
    let begun = Instant::now();
    backend.disconnect("alice", "s").await;
    backend.tasks.close();
    backend.tasks.wait().await;
    let (life, most) = (backend.session.recheck, LONGEST_PAUSE + Duration::from_secs(3));
    assert!(begun.elapsed() >= life && begun.elapsed() < life + most, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn p9_gateways_that_died_are_not_waited_for_one_after_the_other() {
    let (backend, told) = gateway(&[u32::MAX, u32::MAX, u32::MAX, 0]).await;
    let begun = Instant::now();
    assert!(!backend.disconnect_elsewhere("alice", "s", 1).await);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(told[3].lock().unwrap().len(), 1);
}
