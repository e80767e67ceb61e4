//! The gateway over given dependencies: bound, then run.

use crate::{
    backend::{Backend, Dependencies},
    delivery::Delivery,
    drain, http,
    proxies::Proxies,
    serve::{self, Serving},
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
use utils::{Phase, Shutdown, tls::ServerTls};

/// Largest delivery from a pusher.
const MAX_DELIVERY: usize = 32 << 20;
/// How long everything else may take when a gateway stops: requests, sockets and calls in flight, records on their way to the
/// log.
const STOP: Duration = Duration::from_secs(25);
/// What requests have begun has so long to be finished, once they are answered and the devices are gone.
const FINISH: Duration = Duration::from_secs(2);

/// Everything bound, nothing running.
#[derive(Debug)]
pub struct Gateway {
    backend: Arc<Backend>,
    listener: TcpListener,
    address: SocketAddr,
    serving: Serving,
    drain: Duration,
    drain_grace: Duration,
}

impl Gateway {
    /// Takes a bound listener for HTTP and WebSocket, and the address under which pushers reach this gateway.
    ///
    /// # Errors
    /// A sentence: no keys, costs of Argon2id that are out of bounds, a listener without an address.
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
            backend: Arc::new(backend),
            address: listener.local_addr()?,
            listener,
            serving: Serving {
                max_open: config.gateway.max_connections as usize,
                tls: ServerTls::new(&config.gateway)?,
                proxies: Proxies::new(&config.gateway.trusted_proxies),
            },
            drain: config.gateway.drain,
            drain_grace: config.gateway.drain_grace,
        })
    }

    /// Where HTTP and WebSocket are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as the beginning of a URL.
    pub fn url(&self) -> String {
        let scheme = if self.serving.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What pushers and other gateways call.
    pub fn grpc(&self) -> GatewayServiceServer<Delivery> {
        GatewayServiceServer::new(Delivery(self.backend.clone())).max_decoding_message_size(MAX_DELIVERY)
    }

    /// Serves until the shutdown, as tasks of it.
    pub fn run(self, shutdown: &Shutdown) {
        let sockets = TaskTracker::new();
        let stop = shutdown.token(Phase::StopAccepting);
        let router = http::router(self.backend.clone(), sockets.clone(), self.serving.max_open);
        let server = serve::serve(self.listener, router, self.serving, stop);
        shutdown.tasks().spawn_critical("http", server);
        let grace = self.drain_grace;
        // `/readyz` says so by now: whoever sends connections here has the time to notice.
        shutdown.on(Phase::Deregister, "grace", async move { tokio::time::sleep(grace).await });
        let (backend, time) = (self.backend, self.drain);
        shutdown.on(Phase::TellClients, "sockets", async move {
            sockets.close();
            drain::run(&backend.hub, &sockets, time).await;
            backend.tasks.close();
            if tokio::time::timeout(FINISH, backend.tasks.wait()).await.is_err() {
                tracing::info!(
                    left = backend.tasks.len(),
                    "gateways were not told in time to close sessions"
                );
            }
        });
    }
}

/// The longest that a program with a gateway takes to stop.
pub fn drain_limit(config: &Config) -> Duration {
    config.gateway.drain_grace.max(config.discovery.drain_grace) + config.gateway.drain + STOP
}

/// The keys of access tokens: those of the configuration, or those that db-service keeps. Waits for db-service.
pub async fn signing_keys(config: &Config, db: abi::Channel) -> Vec<SigningKey> {
    if !config.auth.keys.is_empty() {
        return Tokens::configured_keys(&config.auth.keys);
    }
    let mut db = DbServiceClient::new(abi::Caller::new(db));
    loop {
        match db.get_signing_keys(GetSigningKeysRequest {}).await {
            Ok(keys) => return keys.into_inner().keys,
            Err(error) => {
                tracing::warn!(%error, "db-service does not answer yet; asking again for the signing keys")
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
