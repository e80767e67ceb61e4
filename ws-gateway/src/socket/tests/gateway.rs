//! A gateway over local stand-ins for its dependencies, and a device that talks to it.

use super::hanging_cache::HangingCache;
use crate::{
    Dependencies, admission::Admission, backend::Backend, http, hub::Identity, memory::Memory,
    proxies::Proxies, serve, token::Tokens,
};
use ::http::{HeaderMap, HeaderValue, Request, Response, header};
use abi::{
    Channel, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO,
    config::Config,
    v1::{
        ClientFrame, HistoryPage, MarkReadResponse, MarkedRead, Profile, Profiles, ReadPosition, SigningKey,
    },
};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use kafka_runtime::{Health, OnDelivery, Position, ProduceError, Producer, ProducerRecord};
use prost::Message as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, client::IntoClientRequest as _},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::{service_fn, util::BoxCloneSyncService};
use utils::Readiness;

/// A log whose queue is full for the first record. It accepts all later ones.
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

/// A gateway with a db-service that answers when the test permits it: success to every call, and one page of history.
pub(super) struct Gateway {
    address: std::net::SocketAddr,
    token: String,
    backend: Arc<Backend>,
    pub(super) sockets: TaskTracker,
    /// One permit per call that db-service received.
    pub(super) calls: Arc<Semaphore>,
    /// One permit per call that db-service may answer.
    pub(super) answers: Arc<Semaphore>,
    /// Whether db-service reports the session as ended.
    pub(super) is_logged_out: Arc<AtomicBool>,
    _server: JoinSet<()>,
}

pub(super) type Device = WebSocketStream<TcpStream>;

impl Gateway {
    pub(super) async fn start() -> Self {
        Self::start_with(Config::default(), HistoryPage::default()).await
    }

    pub(super) async fn start_with(mut config: Config, history: HistoryPage) -> Self {
        // No test may fail because the machine is slow.
        config.gateway.hello_timeout = Duration::from_secs(3_600);
        let key = SigningKey { id: "k".into(), secret: vec![7; 32].into() };
        let tokens = Tokens::new(config.app.clone(), Duration::from_secs(3_600), &[key]).unwrap();
        let identity = Identity { user: "alice".into(), device: "phone".into(), session: "s".into() };
        let token = tokens.issue(&identity).unwrap();
        let (calls, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let is_logged_out = Arc::new(AtomicBool::default());
        let db = db_service(calls.clone(), answers.clone(), is_logged_out.clone(), &history);
        let services = Dependencies {
            db: db.clone(),
            push: db,
            gateways: Arc::new(|_| unreachable!("there is no other gateway")),
            cache: Arc::new(HangingCache::default()),
            producer: Arc::new(Log::default()),
        };
        let backend = Arc::new(Backend::new(&config, tokens, "here:0".into(), services).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sockets) = (listener.local_addr().unwrap(), TaskTracker::new());
        let admission = Admission::new(&config.limits, 10, 1_000);
        let readiness = Readiness::new();
        let router = http::router(http::Edge {
            backend: backend.clone(),
            sockets: sockets.clone(),
            admission: admission.clone(),
            readiness,
        });
        let options = serve::Options { admission, tls: None, proxies: Proxies::default() };
        let mut server = JoinSet::new();
        server.spawn(serve::serve(listener, router, options, CancellationToken::new()));
        Self { address, token, backend, sockets, calls, answers, is_logged_out, _server: server }
    }

    /// A connection whose device has sent its hello.
    pub(super) async fn connect(&self) -> Device {
        self.connect_as(SUBPROTOCOL_JSON).await
    }

    /// Sends a request, and returns without waiting for its answer.
    pub(super) async fn request(&self, line: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let token = &self.token;
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    pub(super) fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Memory of the outboxes.
    pub(super) fn memory(&self) -> &Arc<Memory> {
        self.backend.connections().hub().memory()
    }

    /// A hello with further fields.
    pub(super) fn hello_with(&self, fields: &str) -> String {
        let comma = if fields.is_empty() { "" } else { "," };
        format!(r#"{{"id":1,"hello":{{"token":"{}"{comma}{fields}}}}}"#, self.token)
    }

    /// The head of the answer to a handshake with these header lines.
    pub(super) async fn handshake(&self, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "no head");
        }
        String::from_utf8(answer).unwrap()
    }

    /// A connection without a hello.
    pub(super) async fn open(&self, subprotocol: &'static str) -> Device {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("ws://{}/v1/ws", self.address).into_client_request().unwrap();
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        client_async(request, stream).await.unwrap().0
    }

    pub(super) async fn connect_as(&self, subprotocol: &'static str) -> Device {
        let mut device = self.open(subprotocol).await;
        let hello = self.hello_with("");
        match subprotocol {
            SUBPROTOCOL_PROTO => send_proto(&mut device, &hello).await,
            _ => send_json(&mut device, &hello).await,
        }
        // The gateway is checking the session.
        self.calls.acquire().await.unwrap().forget();
        device
    }
}

pub(super) async fn send_json(device: &mut Device, frame: &str) {
    device.send(tungstenite::Message::text(frame.to_owned())).await.unwrap();
}

/// Sends a frame that is given in JSON in `godwit.v1.proto`.
pub(super) async fn send_proto(device: &mut Device, frame: &str) {
    let frame: ClientFrame = serde_json::from_str(frame).unwrap();
    device.send(tungstenite::Message::binary(frame.encode_to_vec())).await.unwrap();
}

pub(super) async fn receive(device: &mut Device) -> String {
    device.next().await.unwrap().unwrap().to_string()
}

/// An uncompressed gRPC message.
fn message(content: &impl prost::Message) -> Bytes {
    let content = content.encode_to_vec();
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &content].concat().into()
}

/// A db-service that answers every call with an empty message, except for `History`, `GetProfiles` (every user exists), and
/// `MarkRead` (the mark is stored).
fn db_service(
    calls: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    is_logged_out: Arc<AtomicBool>,
    history: &HistoryPage,
) -> Channel {
    let (empty, history) = (message(&HistoryPage::default()), message(history));
    let profiles = message(&Profiles { profiles: vec![Profile::default()] });
    let position = Some(ReadPosition::default());
    let marked =
        message(&MarkReadResponse { marked: vec![MarkedRead { position, ..MarkedRead::default() }] });
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        calls.add_permits(1);
        let answers = answers.clone();
        let message = match request.uri().path().rsplit('/').next() {
            Some("History") => &history,
            Some("GetProfiles") => &profiles,
            Some("MarkRead") => &marked,
            _ => &empty,
        };
        let (message, is_logged_out) = (Full::new(message.clone()), is_logged_out.clone());
        let is_get_session = request.uri().path().ends_with("/GetSession");
        async move {
            answers.acquire().await?.forget();
            let is_not_found = is_get_session && is_logged_out.load(Ordering::Relaxed);
            let code = if is_not_found { tonic::Code::NotFound } else { tonic::Code::Ok };
            let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(code as i32))]);
            let body = Body::new(message.with_trailers(std::future::ready(Some(Ok(status)))));
            Ok(Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body)?)
        }
    }))
}
