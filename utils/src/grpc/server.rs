//! A gRPC server with health and reflection.

use crate::{
    Error, Readiness,
    listener::Listener,
    tls::{self, MutualTls},
};
use futures_util::StreamExt as _;
use std::{io, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};

/// Time for calls in flight to finish once the server stops. After that the server returns and drops their connections.
const GRACE: Duration = Duration::from_secs(10);
/// Interval of HTTP/2 pings on idle connections.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// A connection whose ping is not answered within this time is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Concurrent calls per connection. The client queues further calls.
const MAX_STREAMS: u32 = 1024;

/// A gRPC server with health and reflection.
#[derive(Debug)]
pub struct Server {
    routes: Routes,
    descriptors: &'static [u8],
    readiness: Readiness,
    tls: Option<MutualTls>,
}

impl Server {
    /// `descriptors` is an encoded `FileDescriptorSet` for reflection; if it is empty, there is no reflection. gRPC
    /// health reports `SERVING` while `readiness` is ready.
    pub fn new(routes: Routes, descriptors: &'static [u8], readiness: Readiness) -> Self {
        Self { routes, descriptors, readiness, tls: None }
    }

    /// Uses mutual TLS: peers must present a certificate.
    #[must_use]
    pub fn tls(mut self, tls: Option<MutualTls>) -> Self {
        self.tls = tls;
        self
    }

    /// Serves on a bound listener until `stop`, then waits up to 10 s for calls in flight to finish.
    ///
    /// # Errors
    /// The descriptors are not valid, or the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<(), Error> {
        let address =
            listener.local_addr().map_err(|source| Error::Bind { address: "a listener".into(), source })?;
        let (health, health_server) = tonic_health::server::health_reporter();
        let mut routes = self.routes.add_service(health_server);
        if !self.descriptors.is_empty() {
            let reflection = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(self.descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .build_v1()
                .map_err(|error| Error::Descriptors(error.into()))?;
            routes = routes.add_service(reflection);
        }
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(MAX_STREAMS)
            .add_routes(routes);
        crate::metrics::handshakes("grpc");
        let stopped = stop.clone().cancelled_owned();
        let connections = Listener::from(listener).into_stream();
        let served = async {
            match self.tls {
                Some(tls) => {
                    server.serve_with_incoming_shutdown(tls::incoming(connections, tls), stopped).await
                }
                None => {
                    let incoming = connections.map(|stream| {
                        if let Err(error) = stream.set_nodelay(true) {
                            tracing::debug!(%error, "cannot disable Nagle's algorithm for a connection");
                        }
                        Ok::<_, io::Error>(stream)
                    });
                    server.serve_with_incoming_shutdown(incoming, stopped).await
                }
            }
        };
        let grace_period = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            ended = served => ended.map_err(|error| Error::Serve { address, source: error.into() }),
            () = grace_period => Ok(()),
            () = self.readiness.follow(|ready| report(&health, ready)) => Ok(()),
        }
    }
}

/// Reports the health of the service "", which stands for the whole server. Consul and Kubernetes check it.
async fn report(health: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status("", status).await;
}
