//! Server handshakes. They have a timeout and run concurrently, so that a slow peer does not delay others.

use super::MutualTls;
use futures_util::{Stream, StreamExt as _, future::ready};
use rustls::ServerConfig;
use std::{io, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Time limit of a handshake.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent handshakes between services. Further connections wait in the accept queue.
const MAX_CONCURRENT: usize = 64;

pub(super) async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    timeout(TIMEOUT, TlsAcceptor::from(config).accept(stream))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake timed out")))
}

/// The connections whose peers present a valid certificate.
pub(crate) fn incoming(
    connections: impl Stream<Item = TcpStream>,
    tls: MutualTls,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    connections
        .map(move |stream| {
            let tls = tls.clone();
            async move {
                let peer = stream.peer_addr();
                let accepted = match stream.set_nodelay(true) {
                    Ok(()) => accept(tls.server(), stream).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = &accepted {
                    crate::metrics::handshake_failed("grpc");
                    tracing::warn!(?peer, %error, "TLS handshake failed");
                }
                accepted.ok()
            }
        })
        .buffer_unordered(MAX_CONCURRENT)
        .filter_map(|accepted| ready(accepted.map(Ok)))
}
