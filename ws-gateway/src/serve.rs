//! Accepts connections and serves HTTP on them, within bounds: so many at a time, and none that says nothing.
//!
//! A connection that becomes a WebSocket leaves here and is the session's; the bound on those is in [`http`](crate::http).

use axum::{Router, extract::ConnectInfo};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;

/// A connection has so long to send the head of a request, the first and every further one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// When the process can take no more files, accepting rests for so long.
const REST: Duration = Duration::from_millis(100);
/// Requests in flight have so long to be answered once the server stops.
const FINISH: Duration = Duration::from_secs(5);

/// Serves until `stop`; then finishes the requests that are in flight. At most `max_open` connections speak HTTP at a time:
/// one more is closed at once.
pub async fn serve(listener: TcpListener, router: Router, max_open: usize, stop: CancellationToken) {
    let (open, connections) = (Arc::new(Semaphore::new(max_open)), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_the_connection(&error) {
                    tracing::error!(%error, "no connection can be accepted");
                    tokio::time::sleep(REST).await;
                }
                continue;
            }
        };
        let Ok(place) = open.clone().try_acquire_owned() else { continue };
        let connection = serve_connection(stream, address, router.clone(), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    // Who comes now is to be refused and to go elsewhere, not to wait here for the end of this process.
    drop(listener);
    connections.close();
    if tokio::time::timeout(FINISH, connections.wait()).await.is_err() {
        tracing::info!(left = connections.len(), "requests were not answered in time");
    }
}

/// Errors of accepting that say nothing of the next connection.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn serve_connection(stream: TcpStream, address: SocketAddr, router: Router, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn start(max_open: usize) -> (SocketAddr, CancellationToken, tokio::task::JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let slow = async || tokio::time::sleep(FINISH).await;
        let router = Router::new().route("/", get(async || "hello")).route("/slow", get(slow));
        let mut server = tokio::task::JoinSet::new();
        server.spawn(serve(listener, router, max_open, stop.clone()));
        (address, stop, server)
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn p7_a_connection_that_says_nothing_is_closed() {
        let (address, _stop, _server) = start(2).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let begun = tokio::time::Instant::now();
        let mut answer = Vec::new();
        // Closed with or without a word: what counts is that it does not stay.
        let _ = silent.read_to_end(&mut answer).await;
        assert!(begun.elapsed() <= 2 * HEAD_TIMEOUT, "{:?}", begun.elapsed());
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
}
