//! The service put together: bound, then run.

use crate::{
    backend::{Backend, Dependencies},
    delivery::Delivery,
    http, metrics,
    outbox::Outbox,
    serve,
    token::Tokens,
};
use abi::{
    Fault,
    config::Config,
    error::ErrorCode,
    v1::{
        GetSigningKeysRequest, SigningKey, db_service_client::DbServiceClient,
        gateway_service_server::GatewayServiceServer,
    },
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use utils::{Phase, Shutdown};

/// Largest delivery from a pusher.
const MAX_DELIVERY: usize = 32 << 20;
/// Sockets that are still open so long after they were told to go are left.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// Everything bound, nothing running.
#[derive(Debug)]
pub struct App {
    backend: Arc<Backend>,
    listener: TcpListener,
    address: SocketAddr,
    max_connections: usize,
    drain: Duration,
}

impl App {
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
            max_connections: config.gateway.max_connections as usize,
            drain: config.gateway.drain,
        })
    }

    /// Where HTTP and WebSocket are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What pushers and other gateways call.
    pub fn grpc(&self) -> GatewayServiceServer<Delivery> {
        GatewayServiceServer::new(Delivery(self.backend.clone())).max_decoding_message_size(MAX_DELIVERY)
    }

    /// Serves until the shutdown, as tasks of it.
    pub fn run(self, shutdown: &Shutdown) {
        let sockets = TaskTracker::new();
        let stop = shutdown.token(Phase::StopAccepting);
        let router = http::router(self.backend.clone(), sockets.clone(), self.max_connections);
        let server = serve::serve(self.listener, router, self.max_connections, stop);
        shutdown.tasks().spawn_critical("http", server);
        let (backend, drain) = (self.backend, self.drain);
        shutdown.on(Phase::TellClients, "sockets", async move {
            sockets.close();
            tell_clients(&backend, drain).await;
            if tokio::time::timeout(STRAGGLERS, sockets.wait()).await.is_err() {
                tracing::info!(left = sockets.len(), "sockets did not close in time");
            }
        });
    }
}

/// Closes all connections, spread over the time of the drain so that other gateways are not stormed. Each device is told to
/// come back at once: the spreading is done here.
async fn tell_clients(backend: &Backend, drain: Duration) {
    let connections = backend.hub.all();
    let Ok(count) = u32::try_from(connections.len()) else { return };
    let begun = tokio::time::Instant::now();
    metrics::to_drain(count);
    for (number, connection) in (0..).zip(connections) {
        tokio::time::sleep_until(begun + drain * number / count.max(1)).await;
        say_going_away(&connection.outbox);
        metrics::to_drain(count - number - 1);
    }
}

fn say_going_away(outbox: &Outbox) {
    outbox.close(Fault::new(ErrorCode::GoingAway, "this server is going away; connect again"));
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
