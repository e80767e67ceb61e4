//! The service over given dependencies: everything bound, then run. Both the program `ws-gateway` and the one-process program
//! `godwit` use it.

use crate::{
    admission::Admission,
    backend::Backend,
    delivery::Delivery,
    dependencies::Dependencies,
    drain,
    http::{self, Edge},
    proxies::Proxies,
    serve::{self, Options},
    token::Tokens,
};
use abi::{
    config::Config,
    v1::{
        GetSigningKeysRequest, SigningKey, db_service_client::DbServiceClient,
        gateway_service_server::GatewayServiceServer,
    },
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use utils::{Phase, Shutdown, descriptors, listener, tls::ServerTls};

/// Largest gRPC message from a pusher, in bytes.
const MAX_DELIVERY: usize = 32 << 20;
/// Part of the drain limit for everything but the drain of connections: requests and calls in flight, open sockets, the flush
/// of the log.
const DRAIN_MARGIN: Duration = Duration::from_secs(25);
/// How long the tasks of requests may take after all requests are answered and all devices are gone.
const TASKS_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between attempts to get the signing keys from db-service.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The gateway before it runs: everything is built, and no task is started.
#[derive(Debug)]
pub struct Gateway {
    backend: Arc<Backend>,
    listener: TcpListener,
    address: SocketAddr,
    options: Options,
    drain: Duration,
    drain_grace: Duration,
}

impl Gateway {
    /// Takes a bound listener for HTTP and WebSocket. `grpc_address` is the `host:port` under which pushers and other gateways
    /// reach this one.
    ///
    /// # Errors
    /// There is no signing key, the costs of Argon2id are out of its bounds, or the certificate is unusable.
    pub fn build(
        config: &Config,
        listener: TcpListener,
        grpc_address: String,
        keys: &[SigningKey],
        dependencies: Dependencies,
    ) -> anyhow::Result<Self> {
        #[cfg(feature = "defects")]
        crate::defects::warn();
        let tokens = Tokens::new(config.app.clone(), config.auth.access_token_life, keys)
            .ok_or_else(|| anyhow::anyhow!("there is no key to sign access tokens with; set auth.keys"))?;
        let backend = Backend::new(config, tokens, grpc_address, dependencies)
            .map_err(|error| anyhow::anyhow!("auth.argon2_memory_kib and auth.argon2_passes: {error}"))?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            options: Options {
                admission: Admission::new(
                    &config.limits,
                    backend.limits().max_connections,
                    descriptors::limit(),
                ),
                tls: ServerTls::new(&config.gateway)?,
                proxies: Proxies::new(&config.gateway.trusted_proxies),
            },
            backend: Arc::new(backend),
            drain: config.gateway.drain,
            drain_grace: config.gateway.drain_grace,
        })
    }

    /// The address that serves HTTP and WebSocket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same address as a URL: `http://HOST:PORT` or `https://HOST:PORT`.
    pub fn url(&self) -> String {
        self.url_of(self.address)
    }

    /// The URL for clients on this machine: an unspecified address is replaced by loopback.
    pub fn client_url(&self) -> String {
        self.url_of(listener::connectable(self.address))
    }

    fn url_of(&self, address: SocketAddr) -> String {
        let scheme = if self.options.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// The gRPC service that pushers and other gateways call.
    pub fn grpc(&self) -> GatewayServiceServer<Delivery> {
        GatewayServiceServer::new(Delivery::new(&self.backend)).max_decoding_message_size(MAX_DELIVERY)
    }

    /// Serves until `shutdown`. Returns once everything runs.
    pub fn run(self, shutdown: &Shutdown) {
        let sockets = TaskTracker::new();
        let stop = shutdown.token(Phase::StopAccepting);
        let router = http::router(Edge {
            backend: self.backend.clone(),
            sockets: sockets.clone(),
            admission: self.options.admission.clone(),
            readiness: shutdown.readiness().clone(),
        });
        let server = serve::serve(self.listener, router, self.options, stop);
        shutdown.tasks().spawn_critical("http", server);
        let grace = self.drain_grace;
        // `/readyz` reports not ready from now on. Load balancers need this time to notice.
        shutdown.on(Phase::Deregister, "grace", async move { tokio::time::sleep(grace).await });
        let (backend, time) = (self.backend, self.drain);
        shutdown.on(Phase::TellClients, "sockets", async move {
            sockets.close();
            drain::run(backend.connections().hub(), &sockets, time).await;
            let tasks = backend.request_tasks();
            if tokio::time::timeout(TASKS_TIMEOUT, tasks.finish()).await.is_err() {
                tracing::info!(tasks = tasks.running(), "tasks of requests did not end in time");
            }
        });
    }
}

/// The longest time that a program with a gateway takes to drain.
pub fn drain_limit(config: &Config) -> Duration {
    config.gateway.drain_grace.max(config.discovery.drain_grace) + config.gateway.drain + DRAIN_MARGIN
}

/// The keys that sign access tokens: those of the configuration, otherwise those of db-service. Waits until db-service answers.
pub async fn signing_keys(config: &Config, db: abi::Channel) -> Vec<SigningKey> {
    if !config.auth.keys.is_empty() {
        return Tokens::configured_keys(&config.auth.keys);
    }
    let mut db = DbServiceClient::new(abi::Caller::new(db));
    loop {
        match db.get_signing_keys(GetSigningKeysRequest {}).await {
            Ok(keys) => return keys.into_inner().keys,
            Err(error) => {
                tracing::warn!(%error, "cannot get the signing keys from db-service yet; trying again")
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}
