//! A server that tests script frame by frame.

use crate::{Client, Error, Event, Events, Options, Server, State, state::Have, tokens::TokenSource};
use abi::{
    ApiError,
    v1::{
        Ack, ClientFrame, Entry, Hello, Pong, ReceiverSeq, Send, ServerFrame, Welcome, client_frame,
        server_frame::Frame,
    },
};
use futures_util::{SinkExt as _, StreamExt as _, future::BoxFuture};
use prost::Message as _;
use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
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

/// Deadline of each step of a test.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct FakeServer {
    pub(super) listener: TcpListener,
}

pub(super) struct Peer {
    pub(super) socket: WebSocketStream<TcpStream>,
    pub(super) hello: Hello,
}

impl FakeServer {
    pub(super) async fn new() -> (Self, Server) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        (Self { listener }, server)
    }

    /// Accepts a device and reads its hello.
    pub(super) async fn accept(&self) -> Peer {
        let (stream, _) = timeout(TIMEOUT, self.listener.accept()).await.unwrap().unwrap();
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

    /// Accepts a device and welcomes it at a receiver seq.
    pub(super) async fn welcome(&self, seq: u64) -> Peer {
        self.welcome_with(welcome(seq)).await
    }

    pub(super) async fn welcome_with(&self, welcome: Welcome) -> Peer {
        let mut peer = self.accept().await;
        peer.send(1, Frame::Welcome(welcome)).await;
        peer
    }
}

impl Peer {
    pub(super) async fn next(&mut self) -> ClientFrame {
        let Raw::Binary(bytes) = timeout(TIMEOUT, self.socket.next()).await.unwrap().unwrap().unwrap() else {
            panic!("not a binary frame")
        };
        ClientFrame::decode(bytes).unwrap()
    }

    /// The next frame other than a heartbeat. Heartbeats are answered with `seq`.
    pub(super) async fn request(&mut self, seq: u64) -> (u32, client_frame::Frame) {
        let until = std::time::Instant::now() + TIMEOUT;
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

    pub(super) async fn next_send(&mut self) -> (u32, Send) {
        match self.request(0).await {
            (id, client_frame::Frame::Send(send)) => (id, send),
            other => panic!("not a send: {other:?}"),
        }
    }

    pub(super) async fn send(&mut self, id: u32, frame: Frame) {
        let frame = ServerFrame { id, frame: Some(frame), ..ServerFrame::default() };
        self.socket.send(Raw::Binary(frame.encode_to_vec().into())).await.unwrap();
    }

    pub(super) async fn ack(&mut self, id: u32, send: &Send) {
        let ack = Ack { client_msg_id: send.client_msg_id.clone(), ..Ack::default() };
        self.send(id, Frame::Ack(ack)).await;
    }

    pub(super) async fn close(mut self, error: ApiError) {
        let frame = CloseFrame { code: error.code.close().into(), reason: error.close_reason().into() };
        let _ = self.socket.close(Some(frame)).await;
        let _ = timeout(TIMEOUT, self.socket.next()).await;
    }
}

/// Tokens `token-1`, `token-2`, ...: the next one after each rejection.
#[derive(Default)]
pub(super) struct CountedTokens(AtomicU32);

impl TokenSource for CountedTokens {
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>> {
        let number = self.0.load(Ordering::Relaxed).max(1) + u32::from(rejected.is_some());
        self.0.store(number, Ordering::Relaxed);
        Box::pin(async move { Ok(format!("token-{number}")) })
    }
}

pub(super) fn welcome(seq: u64) -> Welcome {
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

pub(super) fn at(seq: u64) -> Option<ReceiverSeq> {
    Some(ReceiverSeq { epoch: 1, seq })
}

pub(super) fn has(seq: u64, positions: &[(&str, u64)]) -> State {
    State {
        have: Some(Have { epoch: 1, seq }),
        positions: positions.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect(),
        ..State::default()
    }
}

pub(super) fn entry(number: u64) -> Entry {
    Entry { conversation: "c".into(), conversation_seq: number, ..Entry::default() }
}

pub(super) async fn connect(state: State) -> (FakeServer, Peer, Client, Events) {
    let (fake, server) = FakeServer::new().await;
    let seq = state.have.map_or(0, |have| have.seq);
    let options = Options { events: 0, max_pause: Duration::from_millis(100), ..Options::default() };
    let (connected, peer) =
        tokio::join!(Client::connect(server, CountedTokens::default(), options, state), fake.welcome(seq));
    let (client, events) = connected.unwrap();
    (fake, peer, client, events)
}

/// The conversation_seqs of the next entries.
pub(super) async fn entries(events: &mut Events, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        match timeout(TIMEOUT, events.next()).await.unwrap().unwrap() {
            Event::Entry(entry) => seqs.push(entry.conversation_seq),
            Event::Ended(error) => panic!("ended: {error}"),
            _ => {}
        }
    }
    seqs
}
