//! Accepts connections and serves HTTP on them. The number of connections is limited, and silent ones are closed.
//!
//! After an upgrade to a WebSocket the connection no longer counts here; [`http`](crate::http) limits WebSockets.

use crate::{
    problem::{ClientAddress, REQUEST_TIMEOUT},
    proxies::Proxies,
};
use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;
use utils::tls::ServerTls;

/// Pause after a failed accept, for example when the process has no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests in flight may take after the stop signal.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// How connections are accepted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most connections that speak HTTP at the same time. Further ones are closed immediately.
    pub max_connections: usize,
    /// Serve TLS with this certificate.
    pub tls: Option<ServerTls>,
    /// The proxies that may forward a client's address.
    pub proxies: Proxies,
}

/// Serves until `stop`, then finishes the requests in flight.
pub async fn serve(listener: TcpListener, router: Router, options: Options, stop: CancellationToken) {
    let (open, connections) = (Arc::new(Semaphore::new(options.max_connections)), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_connection_error(&error) {
                    tracing::error!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Ok(permit) = open.clone().try_acquire_owned() else { continue };
        let (router, options, stop) = (router.clone(), options.clone(), stop.clone());
        connections.spawn(async move {
            // The handshake runs in the task: a slow one delays no other connection.
            handle(stream, address, router, &options, stop).await;
            drop(permit);
        });
    }
    // New connections must be refused now, so that clients try another gateway. Otherwise they would wait in the backlog.
    drop(listener);
    connections.close();
    if tokio::time::timeout(FINISH_TIMEOUT, connections.wait()).await.is_err() {
        tracing::info!(left = connections.len(), "requests were not answered in time");
    }
}

/// Whether an accept failed because of its connection, so that the next one may succeed.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn handle(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    Options { tls, proxies, .. }: &Options,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot disable Nagle's algorithm for a connection");
    }
    let proxies = proxies.clone();
    let Some(tls) = tls else { return serve_connection(stream, address, proxies, router, stop).await };
    let handshake = tokio::select! {
        handshake = tls.accept(stream) => handshake,
        () = stop.cancelled() => return,
    };
    match handshake {
        Ok(stream) => serve_connection(stream, address, proxies, router, stop).await,
        Err(error) => tracing::debug!(%error, "tls handshake failed"),
    }
}

async fn serve_connection<S>(
    stream: S,
    address: SocketAddr,
    proxies: Proxies,
    router: Router,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let client = proxies.client(address.ip(), request.headers());
        request.extensions_mut().insert(ClientAddress(client));
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
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
        tracing::debug!(%error, "http connection failed");
    }
}

#[cfg(test)]
mod tests;
