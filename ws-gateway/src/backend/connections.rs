//! Who is let in, and who has to go: on this gateway and on the others.

use super::{Backend, revoked};
use crate::{
    codec::Format,
    hub::{Connection, Identity},
    outbox::Outbox,
};
use abi::{
    ApiError, Caller,
    error::ErrorCode,
    v1::{
        DisconnectRequest, GetSessionRequest, Hello, ReceiverSeq, Session, Welcome,
        gateway_service_client::GatewayServiceClient,
    },
};
use futures_util::{StreamExt as _, stream};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;
use utils::{backoff::Backoff, clock::now_ms};

/// Other gateways that are told something at a time.
const MAX_PEERS: usize = 16;
/// With so many tasks of requests at work, what could not be told is left to be found out.
const MAX_TASKS: usize = 10_000;
/// Pauses between tries to reach a gateway.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Backend {
    /// Who a token speaks for, if its log-in is still good.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `TOKEN_EXPIRED` or `REVOKED`.
    pub async fn authenticate(&self, token: &str) -> Result<Identity, ApiError> {
        let identity = self.tokens.verify(token)?;
        self.recheck(&identity).await?;
        Ok(identity)
    }

    /// The session of a log-in that is still good.
    ///
    /// # Errors
    /// `REVOKED` if not; others if that can't be said now.
    pub async fn recheck(&self, identity: &Identity) -> Result<Session, ApiError> {
        let request = GetSessionRequest { session: identity.session.clone() };
        match self.db().get_session(request).await.map_err(ApiError::from) {
            Ok(session) => Ok(session.into_inner()),
            Err(fault) if fault.code == ErrorCode::NotFound => {
                Err(ApiError::new(ErrorCode::Revoked, "this device was logged out; log in again"))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Lets a device in: registers its connection, here first and then in the routes, and only then reads the receiver's
    /// seq, so that whatever changes from now on is delivered.
    ///
    /// # Errors
    /// Why it is not let in.
    pub async fn welcome(
        &self,
        hello: Hello,
        format: Format,
        outbox: Arc<Outbox>,
    ) -> Result<(Arc<Connection>, Welcome), ApiError> {
        let identity = self.tokens.verify(&hello.token)?;
        let stored = self.recheck(&identity).await?;
        if !hello.device.is_empty() && hello.device != identity.device {
            return Err(ApiError::new(
                ErrorCode::Unauthenticated,
                "the token is for another device; log in on this one",
            ));
        }
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            id: format!("{}-{number:x}", self.run),
            identity,
            opened_at_ms: now_ms(),
            format,
            outbox,
        });
        self.hub.add(connection.clone())?;
        let place = self.hub.place(&connection);
        let receiver_seq = self.renew(&connection).await?;
        let Identity { user, session, .. } = &connection.identity;
        let (is_good, _) = tokio::join!(
            // Again: who ended the log-in since it was looked at found no route to here.
            self.recheck(&connection.identity),
            self.disconnect_elsewhere(user, session, connection.opened_at_ms),
        );
        is_good?;
        let welcome = Welcome {
            user: connection.identity.user.clone(),
            device: connection.identity.device.clone(),
            receiver_seq: Some(receiver_seq),
            heartbeat_ms: u32::try_from(self.session.heartbeat.as_millis()).unwrap_or(u32::MAX),
            max_body_bytes: u32::try_from(self.max_body).unwrap_or(u32::MAX),
            max_in_flight: self.session.max_in_flight,
            generation: stored.generation,
            generation_before: stored.generation_before,
        };
        place.keep();
        Ok((connection, welcome))
    }

    /// Renews a connection's route and reads the receiver's seq.
    ///
    /// # Errors
    /// `UNAVAILABLE` if the cache is away.
    pub async fn renew(&self, connection: &Connection) -> Result<ReceiverSeq, ApiError> {
        let life = self.session.heartbeat * 5 / 2;
        self.services
            .cache
            .connect(&self.app, &connection.identity.user, &connection.id, &self.address, life)
            .await
            .map_err(|_| ApiError::unavailable("the cache is away; try again"))
    }

    /// Forgets a connection, here and in the routes.
    pub async fn goodbye(&self, connection: &Connection) {
        self.hub.remove(connection);
        let user = &connection.identity.user;
        if let Err(error) = self.services.cache.disconnect(&self.app, user, &connection.id).await {
            tracing::debug!(%error, "a route was left to expire");
        }
    }

    /// Does what a request asks for to its end, whether or not somebody still waits for the answer.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn finish<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let panicked =
            |_| ApiError::new(ErrorCode::Internal, "the request ended in the middle; see the server's log");
        self.tasks.spawn(work).await.map_err(panicked).flatten()
    }

    /// Closes the connections of a session that was ended, on all gateways. It waits for one try only: whom that does not reach
    /// is told later, until every connection that is meant has asked by itself whether its log-in is still good.
    pub async fn disconnect(self: &Arc<Self>, user: &str, session: &str) {
        self.hub.disconnect(user, session, i64::MAX, &revoked());
        if self.disconnect_elsewhere(user, session, 0).await || self.tasks.len() >= MAX_TASKS {
            return;
        }
        let (backend, user, session) = (self.clone(), user.to_owned(), session.to_owned());
        self.tasks.spawn(async move {
            let (mut backoff, begun) = (Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), Instant::now());
            while begun.elapsed() < backend.session.recheck {
                backoff.wait().await;
                if backend.disconnect_elsewhere(&user, &session, 0).await {
                    break;
                }
            }
        });
    }

    /// Tells the other gateways that hold connections of a user to close those of a session, and says whether all were told.
    async fn disconnect_elsewhere(&self, user: &str, session: &str, replaced_at_ms: i64) -> bool {
        let request = DisconnectRequest {
            session: session.into(),
            app: self.app.clone(),
            user: user.into(),
            replaced_at_ms,
        };
        let routes = match self.services.cache.routes(&self.app, &[user]).await {
            Ok(routes) => routes,
            Err(error) => {
                tracing::warn!(%error, "it is not known which gateways are to close a session");
                return false;
            }
        };
        let others = routes.into_iter().flatten().filter(|gateway| **gateway != *self.address);
        // At once: a gateway that died has a route for a while, and each takes its time not to answer.
        let told = stream::iter(others).map(|gateway| {
            let mut peer = GatewayServiceClient::new(Caller::new((self.services.gateways)(&gateway)));
            let request = request.clone();
            async move {
                let told = peer.disconnect(request).await;
                if let Err(error) = &told {
                    tracing::warn!(%gateway, %error, "a gateway was not told to close a session");
                }
                told.is_ok()
            }
        });
        told.buffer_unordered(MAX_PEERS).fold(true, async |all, told| all && told).await
    }
}

#[cfg(test)]
mod tests;
