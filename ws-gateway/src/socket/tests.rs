use super::*;
use crate::{Dependencies, http, proxies::Proxies, serve, token::Tokens};
use ::http::{HeaderMap, HeaderValue, Request, Response, header};
use abi::{
    Channel, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO,
    config::Config,
    v1::{
        self, ClientFrame, Entry, HistoryPage, Members, ReceiverSeq, SigningKey,
        entry::Content,
        message::Body::{Data, Text},
    },
};
use bytes::Bytes;
use cache::{Cache, MemoryCache};
use http_body_util::{BodyExt as _, Full};
use kafka_runtime::{Health, OnDelivery, Position, ProduceError, Producer, ProducerRecord};
use prost::Message as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::client::IntoClientRequest as _};
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

/// A cache that is not there any more when connections are to be forgotten.
#[derive(Default)]
struct Forgetful(MemoryCache);

#[tonic::async_trait]
impl Cache for Forgetful {
    async fn raise(&self, app: &str, users: &[(&str, u32)]) -> cache::Result<Vec<ReceiverSeq>> {
        self.0.raise(app, users).await
    }

    async fn connect(
        &self,
        app: &str,
        user: &str,
        connection: &str,
        gateway: &str,
        life: Duration,
    ) -> cache::Result<ReceiverSeq> {
        self.0.connect(app, user, connection, gateway, life).await
    }

    async fn disconnect(&self, _: &str, _: &str, _: &str) -> cache::Result<()> {
        std::future::pending().await
    }

    async fn routes(&self, app: &str, users: &[&str]) -> cache::Result<Vec<Vec<Arc<str>>>> {
        self.0.routes(app, users).await
    }

    async fn members(&self, app: &str, conversation: &str) -> cache::Result<Option<Arc<Members>>> {
        self.0.members(app, conversation).await
    }

    async fn put_members(
        &self,
        app: &str,
        conversation: &str,
        members: &Members,
        life: Duration,
    ) -> cache::Result<()> {
        self.0.put_members(app, conversation, members, life).await
    }

    async fn ping(&self) -> cache::Result<()> {
        self.0.ping().await
    }
}

/// A gateway whose db-service says yes to everything, when it is let, and has one page of history.
struct Gateway {
    address: std::net::SocketAddr,
    token: String,
    hello: String,
    sockets: TaskTracker,
    /// Calls of db-service that were begun.
    asked: Arc<Semaphore>,
    /// Calls of db-service that may be answered.
    answers: Arc<Semaphore>,
    /// db-service has no sessions any more.
    is_logged_out: Arc<AtomicBool>,
    _server: JoinSet<()>,
}

type Device = WebSocketStream<TcpStream>;

impl Gateway {
    async fn start() -> Self {
        Self::start_with(Config::default(), HistoryPage::default()).await
    }

    async fn start_with(mut config: Config, history: HistoryPage) -> Self {
        // Nothing here ends because it takes long.
        config.gateway.hello_timeout = Duration::from_secs(3_600);
        let key = SigningKey { id: "k".into(), secret: vec![7; 32].into() };
        let tokens = Tokens::new(config.app.clone(), config.auth.access_token_life, &[key]).unwrap();
        let identity =
            crate::hub::Identity { user: "alice".into(), device: "phone".into(), session: "s".into() };
        let token = tokens.issue(&identity).unwrap();
        let hello = format!(r#"{{"id":1,"hello":{{"token":"{token}"}}}}"#);
        let (asked, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let is_logged_out = Arc::new(AtomicBool::default());
        let db = yes(asked.clone(), answers.clone(), is_logged_out.clone(), &history);
        let services = Dependencies {
            db: db.clone(),
            push: db,
            gateways: Arc::new(|_| unreachable!("there is no other gateway")),
            cache: Arc::new(Forgetful::default()),
            producer: Arc::new(Log::default()),
        };
        let backend = Arc::new(Backend::new(&config, tokens, "here:0".into(), services).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sockets) = (listener.local_addr().unwrap(), TaskTracker::new());
        let router = http::router(backend, sockets.clone(), 10);
        let serving = serve::Serving { max_open: 10, tls: None, proxies: Proxies::default() };
        let mut server = JoinSet::new();
        server.spawn(serve::serve(listener, router, serving, CancellationToken::new()));
        Self { address, token, hello, sockets, asked, answers, is_logged_out, _server: server }
    }

    /// A connection whose device has said hello.
    async fn connect(&self) -> Device {
        self.connect_as(SUBPROTOCOL_JSON).await
    }

    /// A request whose answer is not waited for.
    async fn request(&self, what: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let token = &self.token;
        let head = format!(
            "{what} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    async fn connect_as(&self, subprotocol: &'static str) -> Device {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("ws://{}/v1/ws", self.address).into_client_request().unwrap();
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        let (mut device, _) = client_async(request, stream).await.unwrap();
        match subprotocol {
            SUBPROTOCOL_PROTO => say_in_proto(&mut device, &self.hello).await,
            _ => say(&mut device, &self.hello).await,
        }
        // Its token is being looked at.
        self.asked.acquire().await.unwrap().forget();
        device
    }
}

async fn say(device: &mut Device, frame: &str) {
    device.send(tungstenite::Message::text(frame.to_owned())).await.unwrap();
}

/// The same in `godwit.v1.proto`.
async fn say_in_proto(device: &mut Device, frame: &str) {
    let frame: ClientFrame = serde_json::from_str(frame).unwrap();
    device.send(tungstenite::Message::binary(frame.encode_to_vec())).await.unwrap();
}

async fn hear(device: &mut Device) -> String {
    device.next().await.unwrap().unwrap().to_string()
}

/// A message of gRPC, not compressed.
fn message(content: &impl prost::Message) -> Bytes {
    let content = content.encode_to_vec();
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &content].concat().into()
}

/// A service that answers every call but that of a history with an empty message, all of whose fields are left out.
fn yes(
    asked: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    is_logged_out: Arc<AtomicBool>,
    history: &HistoryPage,
) -> Channel {
    let (nothing, history) = (message(&HistoryPage::default()), message(history));
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        asked.add_permits(1);
        let answers = answers.clone();
        let message = if request.uri().path().ends_with("/History") { &history } else { &nothing };
        let (message, is_logged_out) = (Full::new(message.clone()), is_logged_out.clone());
        let is_of_a_session = request.uri().path().ends_with("/GetSession");
        async move {
            answers.acquire().await?.forget();
            let is_not_found = is_of_a_session && is_logged_out.load(Ordering::Relaxed);
            let code = if is_not_found { tonic::Code::NotFound } else { tonic::Code::Ok };
            let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(code as i32))]);
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

#[tokio::test]
async fn p5_a_page_of_history_comes_however_large_it_is_in_a_frame() {
    let cases = [
        (SUBPROTOCOL_JSON, 100, Data(vec![0xff; 16 << 10].into())),
        (SUBPROTOCOL_PROTO, 500, Text("x".repeat(2_000))),
    ];
    for (subprotocol, count, body) in cases {
        let mut config = Config::default();
        config.gateway.max_outbox = config.gateway.max_frame;
        let message = v1::Message { content_type: String::new(), body: Some(body) };
        let entry = Entry { content: Some(Content::Message(message)), ..Entry::default() };
        let history = HistoryPage { entries: vec![entry; count], more: true };
        let gateway = Gateway::start_with(config, history.clone()).await;
        gateway.answers.add_permits(100);
        let mut device = gateway.connect_as(subprotocol).await;
        device.next().await.unwrap().unwrap();
        let ask = r#"{"id":2,"history":{"conversation":"d:alice:bob"}}"#;
        let frame: v1::ServerFrame = if subprotocol == SUBPROTOCOL_PROTO {
            say_in_proto(&mut device, ask).await;
            v1::ServerFrame::decode(device.next().await.unwrap().unwrap().into_data()).unwrap()
        } else {
            say(&mut device, ask).await;
            serde_json::from_str(&hear(&mut device).await).unwrap()
        };
        assert!(frame.frame == Some(Frame::History(history)), "a page in {subprotocol}");
    }
}

#[tokio::test]
async fn p8_who_is_logged_out_while_connecting_is_not_let_in() {
    let gateway = Gateway::start().await;
    let mut device = gateway.connect().await;
    // The log-in was good; it ends before other gateways can know that the device is here.
    gateway.answers.add_permits(1);
    gateway.asked.acquire().await.unwrap().forget();
    gateway.is_logged_out.store(true, Ordering::Relaxed);
    gateway.answers.add_permits(100);
    assert!(hear(&mut device).await.contains("REVOKED"));
}

#[tokio::test]
async fn p8_a_log_out_closes_the_connection_also_when_nobody_waits_for_its_answer() {
    let gateway = Gateway::start().await;
    let mut device = gateway.connect().await;
    gateway.answers.add_permits(2);
    assert!(hear(&mut device).await.contains("welcome"));
    gateway.asked.acquire().await.unwrap().forget();
    let request = gateway.request("DELETE /v1/sessions/current").await;
    // The token is good; now the log-in is being ended.
    gateway.asked.acquire().await.unwrap().forget();
    gateway.answers.add_permits(1);
    gateway.asked.acquire().await.unwrap().forget();
    drop(request);
    // Time to notice that the client is gone.
    tokio::time::sleep(Duration::from_millis(50)).await;
    gateway.answers.add_permits(1);
    let closed = timeout(Duration::from_secs(10), hear(&mut device)).await.expect("the device is told");
    assert!(closed.contains("REVOKED"), "{closed}");
}

#[tokio::test]
async fn p7_a_send_that_is_refused_counts_too() {
    let mut config = Config::default();
    (config.limits.sends_per_second, config.limits.send_burst) = (1, 1);
    let gateway = Gateway::start_with(config, HistoryPage::default()).await;
    gateway.answers.add_permits(100);
    let mut device = gateway.connect().await;
    assert!(hear(&mut device).await.contains("welcome"));
    for code in ["INVALID_REQUEST", "RATE_LIMITED"] {
        say(&mut device, r#"{"id":2,"send":{"conversation":"nonsense","clientMsgId":"m"}}"#).await;
        let answer = hear(&mut device).await;
        assert!(answer.contains(code), "{answer}");
    }
}

#[tokio::test]
async fn p7_asking_who_is_in_a_group_has_a_limit() {
    let mut config = Config::default();
    (config.limits.sends_per_second, config.limits.send_burst) = (1, 1);
    let gateway = Gateway::start_with(config, HistoryPage::default()).await;
    gateway.answers.add_permits(100);
    for status in ["403", "429"] {
        let mut answer = String::new();
        let mut request = gateway.request("GET /v1/groups/g:x/members").await;
        request.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn p9_a_device_is_told_why_it_has_to_go_also_when_the_cache_is_away() {
    let gateway = Gateway::start().await;
    gateway.answers.add_permits(100);
    let mut old = gateway.connect().await;
    assert!(hear(&mut old).await.contains("welcome"));
    let mut new = gateway.connect().await;
    assert!(hear(&mut new).await.contains("welcome"));
    let told = timeout(Duration::from_secs(10), hear(&mut old)).await.expect("it waits for the cache");
    assert!(told.contains("REPLACED"), "{told}");
}
