//! The SDK against a server that each test plays by hand, frame by frame.

use super::*;
use crate::{state::Have, tokens::TokenSource};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{
        ClientFrame, Deliver, Entry, GetHistory, Head, Hello, Pong, ReadReceipt, ReceiverSeq, ServerFrame,
        Welcome, client_frame, server_frame::Frame,
    },
};
use futures_util::{SinkExt as _, StreamExt as _, future::BoxFuture};
use prost::Message as _;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message as Raw,
        handshake::server::{Request, Response},
        http::{HeaderValue, header},
        protocol::CloseFrame,
    },
};

mod catching_up;

const LONG: Duration = Duration::from_secs(10);

struct FakeServer {
    listener: TcpListener,
}

struct Peer {
    socket: WebSocketStream<TcpStream>,
    hello: Hello,
}

impl FakeServer {
    async fn new() -> (Self, Server) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        (Self { listener }, server)
    }

    /// A device that has said hello.
    async fn accept(&self) -> Peer {
        let (stream, _) = timeout(LONG, self.listener.accept()).await.unwrap().unwrap();
        #[expect(clippy::result_large_err, reason = "the signature is the library's")]
        let protocol = |_: &Request, mut response: Response| {
            let protocol = HeaderValue::from_static(abi::SUBPROTOCOL_PROTO);
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
            Ok(response)
        };
        let socket = accept_hdr_async(stream, protocol).await.unwrap();
        let mut peer = Peer { socket, hello: Hello::default() };
        let frame = peer.next().await;
        let Some(client_frame::Frame::Hello(hello)) = frame.frame else { panic!("not hello: {frame:?}") };
        peer.hello = hello;
        peer
    }

    /// A device that is welcomed at a receiver's seq.
    async fn welcome(&self, seq: u64) -> Peer {
        self.welcome_with(welcome(seq)).await
    }

    async fn welcome_with(&self, welcome: Welcome) -> Peer {
        let mut peer = self.accept().await;
        peer.send(1, Frame::Welcome(welcome)).await;
        peer
    }
}

impl Peer {
    async fn next(&mut self) -> ClientFrame {
        let Raw::Binary(bytes) = timeout(LONG, self.socket.next()).await.unwrap().unwrap().unwrap() else {
            panic!("not a binary frame")
        };
        ClientFrame::decode(bytes).unwrap()
    }

    /// The next frame that is no heartbeat; those are answered.
    async fn ask(&mut self, seq: u64) -> (u32, client_frame::Frame) {
        let until = std::time::Instant::now() + LONG;
        loop {
            assert!(std::time::Instant::now() < until, "nothing but heartbeats");
            let ClientFrame { id, frame } = self.next().await;
            match frame.unwrap() {
                client_frame::Frame::Ping(_) => {
                    self.send(id, Frame::Pong(Pong { receiver_seq: at(seq) })).await
                }
                frame => return (id, frame),
            }
        }
    }

    async fn ask_send(&mut self) -> (u32, Send) {
        match self.ask(0).await {
            (id, client_frame::Frame::Send(send)) => (id, send),
            other => panic!("not a send: {other:?}"),
        }
    }

    async fn send(&mut self, id: u32, frame: Frame) {
        let frame = ServerFrame { id, frame: Some(frame) };
        self.socket.send(Raw::Binary(frame.encode_to_vec().into())).await.unwrap();
    }

    async fn ack(&mut self, id: u32, send: &Send) {
        let ack = Ack { client_msg_id: send.client_msg_id.clone(), ..Ack::default() };
        self.send(id, Frame::Ack(ack)).await;
    }

    async fn close(mut self, fault: ApiError) {
        let frame = CloseFrame { code: fault.code.close().into(), reason: fault.close_reason().into() };
        let _ = self.socket.close(Some(frame)).await;
        let _ = timeout(LONG, self.socket.next()).await;
    }
}

/// Tokens `token-1`, `token-2`, ...: another one whenever one was rejected.
#[derive(Default)]
struct CountedTokens(AtomicU32);

impl TokenSource for CountedTokens {
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>> {
        let number = self.0.load(Ordering::Relaxed).max(1) + u32::from(rejected.is_some());
        self.0.store(number, Ordering::Relaxed);
        Box::pin(async move { Ok(format!("token-{number}")) })
    }
}

fn welcome(seq: u64) -> Welcome {
    Welcome {
        user: "alice".into(),
        device: "a".into(),
        receiver_seq: at(seq),
        heartbeat_ms: 200,
        max_body_bytes: 1_000,
        max_in_flight: 8,
        ..Welcome::default()
    }
}

fn at(seq: u64) -> Option<ReceiverSeq> {
    Some(ReceiverSeq { epoch: 1, seq })
}

fn has(seq: u64, positions: &[(&str, u64)]) -> State {
    State {
        have: Some(Have { epoch: 1, seq }),
        positions: positions.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect(),
        ..State::default()
    }
}

fn entry(number: u64) -> Entry {
    Entry { conversation: "c".into(), conversation_seq: number, ..Entry::default() }
}

async fn connect(state: State) -> (FakeServer, Peer, Client, Events) {
    let (fake, server) = FakeServer::new().await;
    let seq = state.have.map_or(0, |have| have.seq);
    let options = Options { events: 0, max_pause: Duration::from_millis(100), ..Options::default() };
    let (connected, peer) =
        tokio::join!(Client::connect(server, CountedTokens::default(), options, state), fake.welcome(seq));
    let (client, events) = connected.unwrap();
    (fake, peer, client, events)
}

/// The numbers of the next entries.
async fn entries(events: &mut Events, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        match timeout(LONG, events.next()).await.unwrap().unwrap() {
            Event::Entry(entry) => numbers.push(entry.conversation_seq),
            Event::Ended(error) => panic!("ended: {error}"),
            _ => {}
        }
    }
    numbers
}

#[tokio::test]
async fn p2_a_lost_ack_makes_the_same_message_again() {
    let (fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let sending = client.enqueue("c", text("hello"), None).await.unwrap();
    let (_, first) = peer.ask_send().await;
    drop(peer);
    let mut peer = fake.welcome(0).await;
    let (id, second) = peer.ask_send().await;
    assert_eq!(first, second);
    peer.ack(id, &second).await;
    assert_eq!(sending.await.unwrap().client_msg_id, first.client_msg_id);
}

#[tokio::test]
async fn p3_a_refused_message_goes_again_before_the_next_one() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let first = client.enqueue("c", text("1"), None).await.unwrap();
    let second = client.enqueue("c", text("2"), None).await.unwrap();
    let (id, refused) = peer.ask_send().await;
    let wait = Duration::from_millis(150);
    let began = std::time::Instant::now();
    peer.send(id, Frame::Error(ApiError::rate_limited("wait", wait).into())).await;
    let (id, again) = peer.ask_send().await;
    assert!(began.elapsed() >= wait, "the server's pause was not kept");
    assert_eq!(refused, again);
    peer.ack(id, &again).await;
    first.await.unwrap();
    let (id, next) = peer.ask_send().await;
    assert_ne!(next.client_msg_id, again.client_msg_id);
    peer.ack(id, &next).await;
    second.await.unwrap();
}

#[tokio::test]
async fn what_the_server_will_not_take_is_told_with_its_code() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let sending = client.enqueue("c", text("1"), None).await.unwrap();
    let (id, _) = peer.ask_send().await;
    peer.send(id, Frame::Error(ApiError::forbidden("blocked").into())).await;
    assert_eq!(sending.await.unwrap_err().code(), Some(ErrorCode::Forbidden));
}

#[tokio::test]
async fn a_queue_without_places_has_one() {
    let (fake, server) = FakeServer::new().await;
    let options = Options { queue: 0, ..Options::default() };
    let (client, _events) = Client::start(server, CountedTokens::default(), options, has(0, &[]));
    let mut peer = fake.welcome(0).await;
    let sending = client.enqueue("c", text("1"), None).await.unwrap();
    let (id, send) = peer.ask_send().await;
    peer.ack(id, &send).await;
    sending.await.unwrap();
}

#[tokio::test]
async fn what_is_larger_than_any_frame_that_the_server_takes_ends_alone() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let large = client.enqueue("c", text("x".repeat(6_000)), None).await.unwrap();
    let next = client.enqueue("c", text("2"), None).await.unwrap();
    let (id, send) = peer.ask_send().await;
    assert!(send.message == Some(text("2")), "the server would close the connection");
    peer.ack(id, &send).await;
    next.await.unwrap();
    assert_eq!(large.await.unwrap_err().code(), Some(ErrorCode::TooLarge));
    let query = GetHistory { conversation: "x".repeat(6_000), ..GetHistory::default() };
    for _ in 0..20 {
        let refused = timeout(LONG, client.history(query.clone())).await.unwrap();
        assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::TooLarge));
    }
}

#[tokio::test]
async fn p7_no_more_sends_are_unanswered_than_the_server_said() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    for number in 0..20 {
        client.enqueue(&format!("c{number}"), text("x"), None).await.unwrap();
    }
    let mut sends = Vec::new();
    for _ in 0..8 {
        sends.push(peer.ask_send().await);
    }
    // Heartbeats go on, so a ninth send would come before the third of them.
    for _ in 0..3 {
        let ClientFrame { id, frame } = peer.next().await;
        assert!(matches!(frame, Some(client_frame::Frame::Ping(_))), "more than eight unanswered: {frame:?}");
        peer.send(id, Frame::Pong(Pong { receiver_seq: at(0) })).await;
    }
    let (id, send) = &sends[0];
    peer.ack(*id, send).await;
    peer.ask_send().await;
}

#[tokio::test]
async fn an_expired_token_is_replaced_and_the_device_comes_back() {
    let (fake, peer, _client, _events) = connect(has(0, &[])).await;
    assert_eq!(peer.hello.token, "token-1");
    peer.close(ApiError::new(ErrorCode::TokenExpired, "expired")).await;
    assert_eq!(fake.welcome(0).await.hello.token, "token-2");
}

#[tokio::test]
async fn a_device_that_was_replaced_stays_away_and_says_why() {
    let (fake, peer, client, mut events) = connect(has(0, &[])).await;
    let sending = client.enqueue("c", text("1"), None).await.unwrap();
    peer.close(ApiError::new(ErrorCode::Replaced, "another")).await;
    let ended = async {
        loop {
            if let Some(Event::Ended(error)) = events.next().await {
                return error;
            }
        }
    };
    assert_eq!(timeout(LONG, ended).await.unwrap().code(), Some(ErrorCode::Replaced));
    assert!(events.next().await.is_none());
    assert_eq!(sending.await.unwrap_err().code(), Some(ErrorCode::Replaced));
    assert_eq!(client.send("c", text("2")).await.unwrap_err().code(), Some(ErrorCode::Replaced));
    assert!(timeout(Duration::from_millis(300), fake.listener.accept()).await.is_err(), "it came back");
}

#[tokio::test]
async fn p9_a_device_that_was_replaced_by_its_own_given_up_attempt_comes_back_once() {
    let (server, peer, _client, mut events) = connect(State::default()).await;
    drop(peer);
    // A hello without an answer: the server may find it later, and take it for the newer connection.
    drop(server.accept().await);
    for comes_back in [true, false] {
        server.welcome(0).await.close(ApiError::new(ErrorCode::Replaced, "another connection")).await;
        let mut ended = false;
        while let Ok(event) = timeout(LONG, events.next()).await {
            match event {
                Some(Event::Disconnected { error, .. }) if error.code() == Some(ErrorCode::Replaced) => break,
                Some(Event::Ended(error)) => {
                    assert_eq!(error.code(), Some(ErrorCode::Replaced));
                    ended = true;
                    break;
                }
                other => assert!(other.is_some(), "it ends with a reason"),
            }
        }
        assert_eq!(ended, !comes_back);
    }
}

#[tokio::test]
async fn p7_a_device_reads_while_it_writes() {
    const MIB: usize = 1024 * 1024;
    let (fake, server) = FakeServer::new().await;
    let (client, mut events) =
        Client::start(server, CountedTokens::default(), Options::default(), has(0, &[("c", 0)]));
    let mut peer = fake
        .welcome_with(Welcome { heartbeat_ms: 30_000, max_body_bytes: 5 * MIB as u32, ..welcome(0) })
        .await;
    let mut sendings = Vec::new();
    for number in 0..4 {
        let text = text("x".repeat(5 * MIB));
        sendings.push(client.enqueue(&format!("c{number}"), text, None).await.unwrap());
    }
    // Both directions hold more than the buffers between two sockets take.
    let serve = async {
        for number in 1..=16 {
            let content = Some(abi::v1::entry::Content::Message(text("y".repeat(MIB))));
            let entries = vec![Entry { content, ..entry(number) }];
            peer.send(0, Frame::Deliver(Deliver { receiver_seq: at(number), raised: 1, entries })).await;
        }
        for _ in 0..4 {
            let (id, send) = peer.ask_send().await;
            peer.ack(id, &send).await;
        }
    };
    timeout(LONG, serve).await.expect("both sides wait for the other to read");
    for sending in sendings {
        sending.await.unwrap();
    }
    assert_eq!(entries(&mut events, 16).await, (1..=16).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    let (fake, server) = FakeServer::new().await;
    drop(fake);
    let error = Client::connect(server, CountedTokens::default(), Options::default(), State::default()).await;
    assert!(matches!(error, Err(Error::Connect { .. })), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let (fake, server) = FakeServer::new().await;
    let serve = async {
        fake.accept().await.close(ApiError::rate_limited("busy", Duration::from_millis(20))).await;
        fake.accept().await.close(ApiError::new(ErrorCode::Unauthenticated, "who are you")).await;
    };
    let (connected, ()) = tokio::join!(
        Client::connect(server, CountedTokens::default(), Options::default(), State::default()),
        serve
    );
    assert_eq!(connected.unwrap_err().code(), Some(ErrorCode::Unauthenticated));
}

#[tokio::test]
async fn queries_outlive_a_connection() {
    let (fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let serve = async {
        peer.ask(0).await;
        drop(peer);
        let mut peer = fake.welcome(0).await;
        let (id, frame) = peer.ask(0).await;
        assert!(matches!(frame, client_frame::Frame::Read(_)), "{frame:?}");
        peer.send(id, Frame::Read(abi::v1::ReadMarked { read_seq: 7 })).await;
        peer
    };
    let (read, _peer) = tokio::join!(client.mark_read("c", 7), serve);
    assert_eq!(read.unwrap(), 7);
}

#[tokio::test]
async fn close_ends_what_waits() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let sending = client.enqueue("c", text("1"), None).await.unwrap();
    peer.ask_send().await;
    let (_, gone) = tokio::join!(client.close(), async {
        while let Some(Ok(frame)) = peer.socket.next().await {
            if matches!(frame, Raw::Close(_)) {
                return true;
            }
        }
        false
    });
    assert!(gone, "closed without a goodbye");
    assert!(matches!(sending.await, Err(Error::Stopped)));
}
