use super::*;
use crate::{Dependencies, http, proxies::Proxies, serve, token::Tokens};
use ::http::{HeaderMap, HeaderValue, Request, Response, header};
use abi::{Channel, config::Config, v1::SigningKey};
use bytes::Bytes;
use cache::MemoryCache;
use http_body_util::{BodyExt as _, Full};
use kafka_runtime::{Health, OnDelivery, Position, ProduceError, Producer, ProducerRecord};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_tungstenite::{WebSocketStream, client_async};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::{service_fn, util::BoxCloneSyncService};

/// A log that has no room for the first record and then takes everything.
#[derive(Default)]
struct Log(AtomicU32);

#[tonic::async_trait]
impl Producer for Log {
    fn enqueue(&self, _: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ProduceError> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => return Err(ProduceError::QueueFull),
            number => on_delivery(Ok(Position { partition: 0, offset: number.into() })),
        }
        Ok(())
    }

    async fn flush(&self, _: Duration) -> Result<(), ProduceError> {
        Ok(())
    }

    fn health(&self) -> Health {
        Health::Ready
    }
}

/// A gateway whose db-service says yes to everything, when it is let.
struct Gateway {
    address: std::net::SocketAddr,
    hello: String,
    sockets: TaskTracker,
    /// Calls of db-service that were begun.
    asked: Arc<Semaphore>,
    /// Calls of db-service that may be answered.
    answers: Arc<Semaphore>,
    _server: JoinSet<()>,
}

type Device = WebSocketStream<TcpStream>;

impl Gateway {
    async fn start() -> Self {
        let mut config = Config::default();
        // Nothing here ends because it takes long.
        config.gateway.hello_timeout = Duration::from_secs(3_600);
        let key = SigningKey { id: "k".into(), secret: vec![7; 32].into() };
        let tokens = Tokens::new(config.app.clone(), config.auth.access_token_life, &[key]).unwrap();
        let identity =
            crate::hub::Identity { user: "alice".into(), device: "phone".into(), session: "s".into() };
        let hello = format!(r#"{{"id":1,"hello":{{"token":"{}"}}}}"#, tokens.issue(&identity).unwrap());
        let (asked, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let services = Dependencies {
            db: yes(asked.clone(), answers.clone()),
            push: yes(asked.clone(), answers.clone()),
            gateways: Arc::new(|_| unreachable!("there is no other gateway")),
            cache: Arc::new(MemoryCache::default()),
            producer: Arc::new(Log::default()),
        };
        let backend = Arc::new(Backend::new(&config, tokens, "here:0".into(), services).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sockets) = (listener.local_addr().unwrap(), TaskTracker::new());
        let router = http::router(backend, sockets.clone(), 10);
        let serving = serve::Serving { max_open: 10, tls: None, proxies: Proxies::default() };
        let mut server = JoinSet::new();
        server.spawn(serve::serve(listener, router, serving, CancellationToken::new()));
        Self { address, hello, sockets, asked, answers, _server: server }
    }

    /// A connection whose device has said hello.
    async fn connect(&self) -> Device {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut device, _) = client_async(format!("ws://{}/v1/ws", self.address), stream).await.unwrap();
        say(&mut device, &self.hello).await;
        // Its token is being looked at.
        self.asked.acquire().await.unwrap().forget();
        device
    }
}

async fn say(device: &mut Device, frame: &str) {
    device.send(tungstenite::Message::text(frame.to_owned())).await.unwrap();
}

async fn hear(device: &mut Device) -> String {
    device.next().await.unwrap().unwrap().to_string()
}

/// A service that answers every call with an empty message, all of whose fields are left out.
fn yes(asked: Arc<Semaphore>, answers: Arc<Semaphore>) -> Channel {
    BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
        asked.add_permits(1);
        let answers = answers.clone();
        async move {
            answers.acquire().await?.forget();
            let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(0))]);
            // Not compressed, and no bytes long.
            let message = Full::new(Bytes::from_static(&[0; 5]));
            let body = Body::new(message.with_trailers(std::future::ready(Some(Ok(status)))));
            Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body)?)
        }
    }))
}

#[tokio::test]
async fn p5_an_attempt_that_its_device_gave_up_does_not_replace_the_connection_made_since() {
    let gateway = Gateway::start().await;
    let given_up = gateway.connect().await;
    let mut device = gateway.connect().await;
    assert_eq!(gateway.sockets.len(), 2);
    drop(given_up);
    let ended = async {
        while gateway.sockets.len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), ended).await.expect("nobody waits for it, but it goes on");
    // Everything is answered from now on: the given-up attempt would be the later one of the same device.
    gateway.answers.add_permits(100);
    assert!(hear(&mut device).await.contains("welcome"));
    say(&mut device, r#"{"id":2,"ping":{}}"#).await;
    assert!(hear(&mut device).await.contains("pong"));
}

#[tokio::test]
async fn p3_what_was_sent_behind_a_refused_message_does_not_overtake_it() {
    let gateway = Gateway::start().await;
    gateway.answers.add_permits(100);
    let mut device = gateway.connect().await;
    assert!(hear(&mut device).await.contains("welcome"));
    let send = |id: u32, message: &str| {
        format!(
            r#"{{"id":{id},"send":{{"conversation":"d:alice:bob","clientMsgId":"{message}","message":{{"text":"hi"}}}}}}"#
        )
    };
    // The log refuses the first one only. The device says the second one before it can know.
    say(&mut device, &send(2, "first")).await;
    say(&mut device, &send(3, "second")).await;
    for id in [2, 3] {
        let answer = hear(&mut device).await;
        assert!(answer.contains(&format!(r#""id":{id}"#)) && answer.contains("error"), "{answer}");
    }
    // It says both again, in their order.
    say(&mut device, &send(4, "first")).await;
    say(&mut device, &send(5, "second")).await;
    for id in [4, 5] {
        let answer = hear(&mut device).await;
        assert!(answer.contains(&format!(r#""id":{id}"#)) && answer.contains("ack"), "{answer}");
    }
}
