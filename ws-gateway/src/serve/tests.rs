use super::*;
use crate::problem::{self, Address, Problem};
use abi::config::Gateway;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use utils::certificates::{Authority, Validity};

async fn start(max_open: usize) -> (SocketAddr, CancellationToken, tokio::task::JoinSet<()>) {
    start_as(Serving { max_open, tls: None, proxies: Proxies::default() }).await
}

async fn start_as(serving: Serving) -> (SocketAddr, CancellationToken, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let slow = async || tokio::time::sleep(FINISH).await;
    let router = Router::new().route("/", get(async || "hello")).route("/slow", get(slow));
    let router = router.route("/address", get(async |Address(address): Address| address.to_string()));
    let read = async |body| problem::read(body, 100).await.map(|_| "thanks").map_err(Problem::from);
    let router = router.route("/body", post(async move |body: axum::body::Body| read(body).await));
    let mut server = tokio::task::JoinSet::new();
    server.spawn(serve(listener, router, serving, stop.clone()));
    (address, stop, server)
}

async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // What is not HTTP at all is closed in any way.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(start_paused = true)]
async fn p7_a_connection_that_says_nothing_is_closed() {
    let (address, _stop, _server) = start(2).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let begun = tokio::time::Instant::now();
    let mut answer = Vec::new();
    // Closed with or without a word: what counts is that it does not stay.
    let _ = silent.read_to_end(&mut answer).await;
    assert!(begun.elapsed() <= 2 * REQUEST_TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn p7_a_request_whose_body_does_not_come_is_answered_and_closed() {
    let (address, _stop, _server) = start(2).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    let begun = tokio::time::Instant::now();
    slow.write_all(b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nx").await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("idle_timeout"), "{answer}");
    assert!(begun.elapsed() <= 2 * REQUEST_TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn p9_who_comes_while_the_last_requests_are_answered_is_refused() {
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
    tokio::time::timeout(FINISH / 2, refused).await.expect("it still takes connections");
    drop(last);
    server.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn p7_connections_are_bounded_and_a_place_is_free_again_after_one() {
    let (address, stop, mut server) = start(1).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(second.read(&mut [0; 1]).await.unwrap_or(0), 0, "there was no place for it");
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
async fn p7_a_connection_that_never_ends_its_handshake_is_closed_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::new(folder.path(), "ours").issue(&["127.0.0.1"], Validity::Current);
    let gateway = Gateway { tls_certificate: files.certificate, tls_key: files.key, ..Gateway::default() };
    let tls = ServerTls::new(&gateway).unwrap();
    let (address, _stop, _server) = start_as(Serving { max_open: 3, tls, proxies: Proxies::default() }).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut next = TcpStream::connect(address).await.unwrap();
    assert!(!ask(&mut next).await.contains("hello"), "nobody is served without TLS");
    let begun = tokio::time::Instant::now();
    let _ = silent.read_to_end(&mut Vec::new()).await;
    assert!(begun.elapsed() <= 2 * REQUEST_TIMEOUT, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn p8_a_trusted_proxy_says_where_a_client_is_and_nobody_else() {
    for (trusted, seen) in [("127.0.0.0/8", "9.9.9.9"), ("10.0.0.0/8", "127.0.0.1")] {
        let proxies = Proxies::new(&[trusted.parse().unwrap()]);
        let (address, _stop, _server) = start_as(Serving { max_open: 1, tls: None, proxies }).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "GET /address HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: 6.6.6.6, 9.9.9.9\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(&format!("\r\n{seen}")), "{answer}");
    }
}
