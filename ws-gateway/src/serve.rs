//! Accepts connections and serves HTTP on them. [`Admission`] limits their number, and silent ones are closed.

use crate::{
    admission::{Admission, Admitted, Slot},
    problem::{ClientAddress, REQUEST_TIMEOUT},
    proxies::Proxies,
    request_id::RequestId,
};
use abi::{ApiError, error::ErrorCode};
use axum::{Router, response::Response};
use hyper::{body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service as _;
use utils::{listener::Listener, problem::respond, tls::ServerTls};

/// How long requests in flight may take after the stop signal.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of a request, in bytes: method, path and headers.
pub(crate) const MAX_HEAD: usize = 16 << 10;
/// Largest read buffer of a connection, in bytes. The HTTP library refuses a head that does not fit with 431 and no body;
/// between both sizes the response is a problem document.
const MAX_BUFFER: usize = 2 * MAX_HEAD;

/// How connections are accepted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Limits of connections.
    pub admission: Arc<Admission>,
    /// Serve TLS with this certificate.
    pub tls: Option<ServerTls>,
    /// The proxies that may forward a client's address.
    pub proxies: Proxies,
}

/// The connection of a request. The server adds it to each request.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The slot of the connection. A WebSocket keeps it until it is closed.
    pub slot: Slot,
    /// Whether the connection comes from a trusted proxy. Otherwise it has been counted for its address already.
    pub is_proxy: bool,
}

/// Shared by all connections.
struct Shared {
    router: Router,
    options: Options,
    stop: CancellationToken,
}

/// Serves until `stop`, then finishes the requests in flight.
pub async fn serve(listener: TcpListener, router: Router, options: Options, stop: CancellationToken) {
    let (mut listener, connections) = (Listener::from(listener), TaskTracker::new());
    let shared = Arc::new(Shared { router, options, stop });
    loop {
        let (stream, address) = tokio::select! {
            () = shared.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Options { admission, proxies, .. } = &shared.options;
        let Ok(admitted) = admission.admit(address.ip(), proxies.trusts(address.ip())) else { continue };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let first_bytes = tokio::select! {
                readable = timeout(REQUEST_TIMEOUT, stream.readable()) => matches!(readable, Ok(Ok(()))),
                () = shared.stop.cancelled() => false,
            };
            if first_bytes {
                // Boxed: a connection that sends nothing costs only the small task.
                Box::pin(handle(stream, address, &shared, &admitted)).await;
            }
            drop(admitted);
        });
    }
    // New connections must be refused now, so that clients try another gateway. Otherwise they would wait in the backlog.
    drop(listener);
    connections.close();
    if timeout(FINISH_TIMEOUT, connections.wait()).await.is_err() {
        tracing::info!(left = connections.len(), "requests were not answered in time");
    }
}

/// Performs the TLS handshake, if there is one, and serves the connection. It runs in the connection's task: a slow handshake
/// delays no other connection.
async fn handle(stream: TcpStream, address: SocketAddr, shared: &Shared, admitted: &Admitted) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot disable Nagle's algorithm for a connection");
    }
    let Some(tls) = &shared.options.tls else {
        return serve_connection(stream, address, shared, admitted).await;
    };
    let handshake = tokio::select! {
        handshake = tls.accept(stream) => handshake,
        () = shared.stop.cancelled() => return,
    };
    match handshake {
        Ok(stream) => serve_connection(stream, address, shared, admitted).await,
        Err(error) => tracing::debug!(%error, "tls handshake failed"),
    }
}

async fn serve_connection<S>(stream: S, address: SocketAddr, shared: &Shared, admitted: &Admitted)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (router, proxies) = (shared.router.clone(), shared.options.proxies.clone());
    let connection = Connection { slot: admitted.slot.clone(), is_proxy: admitted.is_proxy };
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let size = head_size(&request);
        let client = proxies.client(address.ip(), request.headers());
        request.extensions_mut().insert(ClientAddress(client));
        request.extensions_mut().insert(connection.clone());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (mut router, request_id) = (router.clone(), RequestId::of(request.headers()));
        async move {
            let response = if size > MAX_HEAD { head_too_large(size) } else { router.call(request).await? };
            Ok::<_, Infallible>(request_id.complete(&method, &path, response))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "http connection failed");
    }
}

/// The bytes of a request's head: method, path, and header lines with their separators.
fn head_size<B>(request: &hyper::Request<B>) -> usize {
    let line = |name: &header::HeaderName, value: &header::HeaderValue| name.as_str().len() + value.len() + 4;
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let headers: usize = request.headers().iter().map(|(name, value)| line(name, value)).sum();
    request.method().as_str().len() + path + headers
}

fn head_too_large(size: usize) -> Response {
    let message =
        format!("the head of the request has {size} bytes; {MAX_HEAD} are allowed for path and headers");
    let mut response = respond(431, &ApiError::new(ErrorCode::TooLarge, message));
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests;
