//! Server handshakes. They have a timeout and run concurrently, so that a slow peer does not delay others.

use super::MutualTls;
use futures_util::{Stream, StreamExt as _, future::ready};
use rustls::ServerConfig;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::TcpListenerStream;

/// Time limit of a handshake.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Concurrent handshakes between services. Further connections wait in the accept queue.
const MAX_CONCURRENT: usize = 64;
/// Pause after a failed accept. The usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    timeout(TIMEOUT, TlsAcceptor::from(config).accept(stream))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake timed out")))
}

/// The connections of a listener whose peers have presented a valid certificate.
pub(crate) fn incoming(
    listener: TcpListener,
    tls: MutualTls,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    TcpListenerStream::new(listener)
        .map(move |accepted| {
            let tls = tls.clone();
            async move {
                let stream = match accepted {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::error!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        return None;
                    }
                };
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
