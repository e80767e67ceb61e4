//! The server's side of handshakes: within a time, and side by side, so that a slow one holds up nobody.

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

/// A peer that has not finished its handshake by then is left.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes between services at a time; more peers wait to be accepted.
const SIDE_BY_SIDE: usize = 64;
/// When the process can take no more files, accepting rests for so long.
const REST: Duration = Duration::from_millis(500);

pub(super) async fn accept(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    timeout(TIMEOUT, TlsAcceptor::from(config).accept(stream))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long")))
}

/// The connections of a listener whose peers have shown a good certificate.
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
                        tracing::error!(%error, "no connection can be accepted");
                        tokio::time::sleep(REST).await;
                        return None;
                    }
                };
                let peer = stream.peer_addr();
                let shaken = match stream.set_nodelay(true) {
                    Ok(()) => accept(tls.server(), stream).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = &shaken {
                    crate::metrics::handshake_failed("grpc");
                    tracing::warn!(?peer, %error, "a peer was refused");
                }
                shaken.ok()
            }
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .filter_map(|shaken| ready(shaken.map(Ok)))
}
