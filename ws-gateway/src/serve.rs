//! Accepts connections and serves HTTP on them, within bounds: so many at a time, and none that says nothing.
//!
//! A connection that becomes a WebSocket leaves here and is the session's; the bound on those is in [`http`](crate::http).

use crate::{problem::ClientAddress, proxies::Proxies};
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

/// A connection has so long to send the head of a request, the first and every further one, and then so long for its body.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// When the process can take no more files, accepting rests for so long.
const REST: Duration = Duration::from_millis(100);
/// Requests in flight have so long to be answered once the server stops.
const FINISH: Duration = Duration::from_secs(5);

/// How connections are taken.
#[derive(Clone, Debug)]
pub struct Serving {
    /// So many speak HTTP at a time: one more is closed at once.
    pub max_open: usize,
    /// Over TLS, with this certificate.
    pub tls: Option<ServerTls>,
    /// Who is believed about a client's address.
    pub proxies: Proxies,
}

/// Serves until `stop`; then finishes the requests that are in flight.
pub async fn serve(listener: TcpListener, router: Router, serving: Serving, stop: CancellationToken) {
    let (open, connections) = (Arc::new(Semaphore::new(serving.max_open)), TaskTracker::new());
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
        let (router, serving, stop) = (router.clone(), serving.clone(), stop.clone());
        connections.spawn(async move {
            // Within the task: a handshake that takes its time holds up nobody but its own place.
            take(stream, address, router, &serving, stop).await;
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

async fn take(
    stream: TcpStream,
    address: SocketAddr,
    router: Router,
    Serving { tls, proxies, .. }: &Serving,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    let proxies = proxies.clone();
    let Some(tls) = tls else { return serve_connection(stream, address, proxies, router, stop).await };
    let shaken = tokio::select! {
        shaken = tls.accept(stream) => shaken,
        () = stop.cancelled() => return,
    };
    match shaken {
        Ok(stream) => serve_connection(stream, address, proxies, router, stop).await,
        Err(error) => tracing::debug!(%error, "a connection did not become one of TLS"),
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
        tracing::debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests;
