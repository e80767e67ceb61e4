use super::*;
use crate::problem::{self, Address, Problem};
use abi::config::{Gateway, Limits};
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use utils::certificates::{Authority, Validity};

/// Options for at most `connections` connections.
fn options(connections: u64) -> Options {
    let admission = Admission::new(&Limits::default(), 1_000, 100 + connections);
    Options { admission, tls: None, proxies: Proxies::default() }
}

async fn start(connections: u64) -> (SocketAddr, CancellationToken, tokio::task::JoinSet<()>) {
    start_with(options(connections)).await
}

async fn start_with(options: Options) -> (SocketAddr, CancellationToken, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let slow = async || tokio::time::sleep(FINISH_TIMEOUT).await;
    let router = Router::new().route("/", get(async || "hello")).route("/slow", get(slow));
    let router = router.route("/address", get(async |Address(address): Address| address.to_string()));
    let read = async |body| problem::read(body, 100).await.map(|_| "thanks").map_err(Problem::from);
    let router = router.route("/body", post(async move |body: axum::body::Body| read(body).await));
    let mut server = tokio::task::JoinSet::new();
    server.spawn(serve(listener, router, options, stop.clone()));
    (address, stop, server)
}

/// A certificate for 127.0.0.1, in a folder.
fn server_tls(folder: &std::path::Path) -> Option<ServerTls> {
    let files = Authority::new(folder, "ours").issue(&["127.0.0.1"], Validity::Current);
    let gateway = Gateway { tls_certificate: files.certificate, tls_key: files.key, ..Gateway::default() };
    ServerTls::new(&gateway).unwrap()
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The server may reset a connection that does not speak HTTP.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(start_paused = true)]
async fn p7_a_silent_connection_is_closed() {
    let (address, _stop, _server) = start(2).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let began = tokio::time::Instant::now();
    let mut answer = Vec::new();
    // Closed with or without a response: only the time matters.
    let _ = silent.read_to_end(&mut answer).await;
    assert!(began.elapsed() <= 2 * REQUEST_TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn p7_a_request_without_its_body_is_answered_and_closed() {
    let (address, _stop, _server) = start(2).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    let began = tokio::time::Instant::now();
    slow.write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nx").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("idle_timeout"), "{answer}");
    assert!(began.elapsed() <= 2 * REQUEST_TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test]
async fn p9_new_connections_are_refused_while_the_last_requests_finish() {
    let (address, stop, mut server) = start(2).await;
    let mut last = TcpStream::connect(address).await.unwrap();
    last.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.cancel();
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(FINISH_TIMEOUT / 2, refused).await.expect("the server still accepts connections");
    drop(last);
    server.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn p7_connections_are_limited_and_a_closed_one_makes_room() {
    let (address, stop, mut server) = start(1).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "the second connection exceeds the limit");
    assert!(ask(&mut first).await.ends_with("hello"));
    let mut answer = String::new();
    while !answer.ends_with("hello") {
        let mut third = TcpStream::connect(address).await.unwrap();
        answer.clear();
        let _ = third.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let _ = third.read_to_string(&mut answer).await;
    }
    stop.cancel();
    server.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn p7_an_unfinished_tls_handshake_times_out_and_delays_no_other_connection() {
    let folder = tempfile::tempdir().unwrap();
    let tls = server_tls(folder.path());
    let (address, _stop, _server) = start_with(Options { tls, ..options(3) }).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut next = TcpStream::connect(address).await.unwrap();
    assert!(!ask(&mut next).await.contains("hello"), "served without TLS");
    let began = tokio::time::Instant::now();
    let _ = silent.read_to_end(&mut Vec::new()).await;
    assert!(began.elapsed() <= 2 * REQUEST_TIMEOUT, "{:?}", began.elapsed());
}

#[tokio::test]
async fn p8_only_a_trusted_proxy_can_set_the_address_of_a_client() {
    for (trusted, seen) in [("127.0.0.0/8", "9.9.9.9"), ("10.0.0.0/8", "127.0.0.1")] {
        let proxies = Proxies::new(&[trusted.parse().unwrap()]);
        let (address, _stop, _server) = start_with(Options { proxies, ..options(1) }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "GET /address HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: 6.6.6.6, 9.9.9.9\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(&format!("\r\n{seen}")), "{answer}");
    }
}

#[tokio::test]
async fn p7_a_large_head_is_refused_with_431() {
    let (address, _stop, _server) = start(1_000).await;
    for (size, refusal) in [(15 << 10, ""), (17 << 10, "too_large"), (40 << 10, "431")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head =
            format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {}\r\n\r\n", "x".repeat(size));
        // The server may close before it has read everything.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let status = if refusal.is_empty() { "HTTP/1.1 200" } else { "HTTP/1.1 431" };
        assert!(answer.starts_with(status) && answer.contains(refusal), "{size}: {answer}");
    }
}

#[tokio::test]
async fn p7_an_address_beyond_its_share_is_closed_before_tls_and_request() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { http_connections_per_address: 2, ..Limits::default() };
    for tls in [server_tls(folder.path()), None] {
        let admission = Admission::new(&limits, 1_000, 10_000);
        let (address, _stop, _server) = start_with(Options { admission, tls, ..options(1_000) }).await;
        let _silent =
            [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let mut third = TcpStream::connect(address).await.unwrap();
        let closed = tokio::time::timeout(REQUEST_TIMEOUT / 2, third.read(&mut [0; 1])).await;
        assert_eq!(closed.expect("a connection beyond the limit stays open").unwrap_or(0), 0);
    }
    let admission = Admission::new(&limits, 1_000, 10_000);
    let (address, _stop, _server) = start_with(Options { admission, ..options(1_000) }).await;
    drop([TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()]);
    let mut answer = String::new();
    while !answer.ends_with("hello") {
        answer = ask(&mut TcpStream::connect(address).await.unwrap()).await;
    }
}
