//! The life of a connection: opened after authentication, renewed in the routes, closed with its session. It covers the
//! connections of this gateway and calls other gateways about theirs.

use crate::{
    authentication::Authentication,
    codec::Format,
    dependencies::Dependencies,
    hub::{Connection, Hub, Identity, Order},
    limits::Limits,
    outbox::Outbox,
    protocol::Settings,
    request_tasks::RequestTasks,
    signals::Signals,
};
use abi::{
    ApiError, Caller, Gateways,
    error::ErrorCode,
    v1::{DisconnectRequest, Hello, ReceiverSeq, Welcome, gateway_service_client::GatewayServiceClient},
};
use cache::Cache;
use futures_util::{StreamExt as _, stream};
use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use utils::{backoff::Backoff, clock::now_ms};

/// Longest name and version of a client program, and longest name of a feature, in bytes.
const MAX_CLIENT_NAME: usize = 64;
/// Most features that a client may name.
const MAX_FEATURES: usize = 32;
/// Most other gateways that are called at the same time.
const MAX_CONCURRENT_CALLS: usize = 16;
/// Pauses between attempts to reach another gateway.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Opens and closes connections.
pub struct Connections {
    app: String,
    /// Address under which pushers and other gateways reach this one; its name in the routes.
    address: String,
    hub: Arc<Hub>,
    authentication: Arc<Authentication>,
    signals: Arc<Signals>,
    cache: Arc<dyn Cache>,
    gateways: Gateways,
    settings: Arc<Settings>,
    limits: Limits,
    request_tasks: RequestTasks,
    /// Random prefix of connection ids, so that they stay unique across gateways and restarts.
    id_prefix: String,
    next_id: AtomicU64,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Connections {
    pub(crate) fn new(
        app: &str,
        address: String,
        limits: Limits,
        settings: Arc<Settings>,
        authentication: Arc<Authentication>,
        signals: Arc<Signals>,
        dependencies: &Dependencies,
    ) -> Self {
        Self {
            app: app.into(),
            address,
            hub: Arc::new(Hub::new(limits)),
            authentication,
            signals,
            cache: dependencies.cache.clone(),
            gateways: dependencies.gateways.clone(),
            settings,
            limits,
            request_tasks: RequestTasks::default(),
            id_prefix: format!("{:08x}", rand::random::<u32>()),
            next_id: AtomicU64::new(0),
        }
    }

    /// The connections of this gateway.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The tasks of requests, among them retries of [`Self::disconnect`].
    pub fn request_tasks(&self) -> &RequestTasks {
        &self.request_tasks
    }

    /// Authenticates a device and registers its connection: first in the hub, then in the routes. Only then it reads the
    /// receiver's seq, so that every later change is delivered to the connection.
    ///
    /// # Errors
    /// Those of [`Authentication::identify`]; `RATE_LIMITED` for too many connections; `UNAVAILABLE`.
    pub async fn open(
        &self,
        hello: Hello,
        format: Format,
        outbox: Arc<Outbox>,
    ) -> Result<(Arc<Connection>, Welcome), ApiError> {
        check_client(&hello)?;
        let (identity, session) = self.authentication.identify_session(&hello.token).await?;
        if !hello.device.is_empty() && hello.device != identity.device {
            return Err(ApiError::new(
                ErrorCode::Unauthenticated,
                "the token is for another device; log in on this one",
            ));
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            id: format!("{}-{id:x}", self.id_prefix),
            identity,
            order: Order::default(),
            format,
            outbox,
            watched: Mutex::default(),
        });
        self.hub.add(connection.clone())?;
        let registration = self.hub.registration(&connection);
        let receiver_seq = self.register(&connection).await?;
        let (still_valid, _) = tokio::join!(
            // Checked a second time. If the session ended after the first check, no route led here and this gateway was not
            // told to close the connection.
            self.authentication.check_session(&connection.identity),
            self.disconnect_elsewhere(&connection.identity, connection.order.value()),
        );
        still_valid?;
        let welcome = Welcome {
            user: connection.identity.user.clone(),
            device: connection.identity.device.clone(),
            receiver_seq: Some(receiver_seq),
            heartbeat_ms: u32::try_from(self.settings.heartbeat.as_millis()).unwrap_or(u32::MAX),
            max_body_bytes: u32::try_from(self.limits.max_body).unwrap_or(u32::MAX),
            max_in_flight: self.settings.max_in_flight,
            generation: session.generation,
            generation_before: session.generation_before,
            server_version: env!("CARGO_PKG_VERSION").into(),
            features: Vec::new(),
            max_frame_bytes: u32::try_from(self.limits.max_frame).unwrap_or(u32::MAX),
            max_requests: self.settings.max_requests,
            max_page: abi::MAX_PAGE.unsigned_abs(),
            server_time_ms: now_ms(),
        };
        tracing::debug!(
            user = welcome.user,
            device = welcome.device,
            client = hello.client,
            version = hello.version,
            "a device is connected"
        );
        registration.keep();
        Ok((connection, welcome))
    }

    /// Registers the route of a new connection, sets the connection's order, and reads the receiver's seq.
    async fn register(&self, connection: &Connection) -> Result<ReceiverSeq, ApiError> {
        let (user, ttl) = (&connection.identity.user, self.settings.idle_timeout());
        let connected = self.cache.connect(&self.app, user, &connection.id, &self.address, ttl).await;
        let connected = connected.map_err(|_| cache_unavailable())?;
        self.hub.set_order(connection, connected.order);
        if connected.was_offline && connected.is_watched {
            self.announce_presence(user);
        }
        Ok(connected.receiver_seq)
    }

    /// Renews the route of a connection and reads the receiver's seq.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the cache does not answer.
    pub async fn renew(&self, connection: &Connection) -> Result<ReceiverSeq, ApiError> {
        let (user, order) = (&connection.identity.user, connection.order.value());
        let ttl = self.settings.idle_timeout();
        let renewed = self.cache.renew(&self.app, user, &connection.id, &self.address, order, ttl).await;
        let watched = connection.watched();
        if let Err(error) = self.signals.renew_watch(user, &watched, ttl).await {
            tracing::debug!(%error, "cannot renew the watching of presences");
        }
        renewed.map_err(|_| cache_unavailable())
    }

    /// Tells the watchers of a user in the background.
    fn announce_presence(&self, user: &str) {
        let (signals, user) = (self.signals.clone(), user.to_owned());
        self.request_tasks.start(async move { signals.announce_presence(&user).await });
    }

    /// Removes a connection from the hub and from the routes.
    pub async fn close(&self, connection: &Connection) {
        self.hub.remove(connection);
        let user = &connection.identity.user;
        match self.cache.disconnect(&self.app, user, &connection.id).await {
            Ok(true) => self.announce_presence(user),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "cannot remove a route; it expires by itself"),
        }
    }

    /// Closes the connections of a session that has ended, on all gateways. It waits for one attempt only. Gateways that were
    /// not reached are called again in the background, until every affected connection has rechecked its session by itself.
    pub async fn disconnect(self: &Arc<Self>, user: &str, session: &str) {
        self.hub.revoke(user, session);
        let identity = Identity { user: user.into(), device: String::new(), session: session.into() };
        if self.disconnect_elsewhere(&identity, 0).await {
            return;
        }
        let connections = self.clone();
        self.request_tasks.start(async move {
            let (mut backoff, began) = (Backoff::new(FIRST_PAUSE, MAX_PAUSE), Instant::now());
            while began.elapsed() < connections.settings.recheck {
                backoff.wait().await;
                if connections.disconnect_elsewhere(&identity, 0).await {
                    break;
                }
            }
        });
    }

    /// Calls the other gateways with connections of a user to close those of a session: all with a `replaced_by` of 0, otherwise
    /// those with a smaller order. Returns whether all have answered.
    async fn disconnect_elsewhere(&self, identity: &Identity, replaced_by: u64) -> bool {
        let request = DisconnectRequest {
            session: identity.session.clone(),
            app: self.app.clone(),
            user: identity.user.clone(),
            replaced_by,
        };
        let routes = match self.cache.routes(&self.app, &[&identity.user]).await {
            Ok(routes) => routes,
            Err(error) => {
                tracing::warn!(%error, "cannot look up the gateways that must close a session");
                return false;
            }
        };
        let others = routes.into_iter().flatten().filter(|gateway| **gateway != *self.address);
        // Concurrently: the routes of a dead gateway remain until they expire, and a call to it takes a whole timeout.
        let calls = stream::iter(others).map(|gateway| {
            let mut peer = GatewayServiceClient::new(Caller::new((self.gateways)(&gateway)));
            let request = request.clone();
            async move {
                let answer = peer.disconnect(request).await;
                if let Err(error) = &answer {
                    tracing::warn!(%gateway, %error, "cannot reach a gateway to close a session");
                }
                answer.is_ok()
            }
        });
        calls.buffer_unordered(MAX_CONCURRENT_CALLS).fold(true, async |all, answered| all && answered).await
    }
}

fn cache_unavailable() -> ApiError {
    ApiError::unavailable("the cache does not answer; try again")
}

/// Checks the name, version and features of a client program.
fn check_client(hello: &Hello) -> Result<(), ApiError> {
    let names = [("client", &hello.client), ("version", &hello.version)];
    let features = hello.features.iter().map(|feature| ("features", feature));
    for (field, value) in names.into_iter().chain(features) {
        if value.len() > MAX_CLIENT_NAME {
            let error = format!("hello.{field} has {} bytes; {MAX_CLIENT_NAME} are allowed", value.len());
            return Err(ApiError::invalid(error));
        }
    }
    let count = hello.features.len();
    if count > MAX_FEATURES {
        let error = format!("hello.features has {count} names; {MAX_FEATURES} are allowed");
        return Err(ApiError::invalid(error));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
