//! A gRPC server with health and reflection.

use crate::{
    Error, Readiness,
    tls::{self, MutualTls},
};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::server::TcpIncoming};
use tonic_health::{ServingStatus, server::HealthReporter};

/// Calls in flight have so long to finish once the server stops; then their connections are left behind.
const GRACE: Duration = Duration::from_secs(10);
/// A peer that says nothing is asked whether it lives this often, and given up if it doesn't answer.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls that one connection may have in flight; more wait at the client.
const MAX_STREAMS: u32 = 1024;

/// Binds an address of the configuration, `host:port`; port 0 takes a free one.
///
/// # Errors
/// When the address can't be bound.
pub async fn bind(address: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Bind { address: address.to_owned(), source })
}

/// What a server serves.
#[derive(Debug)]
pub struct Server {
    routes: Routes,
    descriptors: &'static [u8],
    readiness: Readiness,
    tls: Option<MutualTls>,
}

impl Server {
    /// `descriptors`: an encoded `FileDescriptorSet` for reflection; empty for none. gRPC health says `SERVING` while
    /// `readiness` is ready.
    pub fn new(routes: Routes, descriptors: &'static [u8], readiness: Readiness) -> Self {
        Self { routes, descriptors, readiness, tls: None }
    }

    /// With TLS it takes only peers that show a certificate.
    #[must_use]
    pub fn tls(mut self, tls: Option<MutualTls>) -> Self {
        self.tls = tls;
        self
    }

    /// Serves on a bound listener until `stop`, then lets calls in flight finish for some seconds.
    ///
    /// # Errors
    /// When the descriptors are not valid or the listener fails.
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
        let served = async {
            match self.tls {
                Some(tls) => server.serve_with_incoming_shutdown(tls::incoming(listener, tls), stopped).await,
                None => {
                    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                    server.serve_with_incoming_shutdown(incoming, stopped).await
                }
            }
        };
        let patience = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            ended = served => ended.map_err(|error| Error::Serve { address, source: error.into() }),
            () = patience => Ok(()),
            () = self.readiness.follow(|ready| report(&health, ready)) => Ok(()),
        }
    }
}

/// The service "" stands for the whole server: Consul and Kubernetes ask for it.
async fn report(health: &HealthReporter, ready: bool) {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status("", status).await;
}
