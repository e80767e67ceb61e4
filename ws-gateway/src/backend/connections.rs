//! Who is let in, and who has to go: on this gateway and on the others.

use super::{Backend, now_ms, revoked};
use crate::{
    codec::Format,
    hub::{Connection, Identity},
    outbox::Outbox,
};
use abi::{
    Caller, Fault,
    error::ErrorCode,
    v1::{
        DisconnectRequest, GetSessionRequest, Hello, ReceiverSeq, Session, Welcome,
        gateway_service_client::GatewayServiceClient,
    },
};
use std::sync::{Arc, atomic::Ordering};

impl Backend {
    /// Who a token speaks for, if its log-in is still good.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `TOKEN_EXPIRED` or `REVOKED`.
    pub async fn authenticate(&self, token: &str) -> Result<Identity, Fault> {
        let identity = self.tokens.verify(token)?;
        self.recheck(&identity).await?;
        Ok(identity)
    }

    /// The session of a log-in that is still good.
    ///
    /// # Errors
    /// `REVOKED` if not; others if that can't be said now.
    pub async fn recheck(&self, identity: &Identity) -> Result<Session, Fault> {
        let request = GetSessionRequest { session: identity.session.clone() };
        match self.db().get_session(request).await.map_err(Fault::from) {
            Ok(session) => Ok(session.into_inner()),
            Err(fault) if fault.code == ErrorCode::NotFound => {
                Err(Fault::new(ErrorCode::Revoked, "this device was logged out; log in again"))
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
    ) -> Result<(Arc<Connection>, Welcome), Fault> {
        let identity = self.tokens.verify(&hello.token)?;
        let stored = self.recheck(&identity).await?;
        if !hello.device.is_empty() && hello.device != identity.device {
            return Err(Fault::new(
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
        self.disconnect_elsewhere(user, session, connection.opened_at_ms).await;
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
    pub async fn renew(&self, connection: &Connection) -> Result<ReceiverSeq, Fault> {
        let life = self.session.heartbeat * 5 / 2;
        self.services
            .cache
            .connect(&self.app, &connection.identity.user, &connection.id, &self.address, life)
            .await
            .map_err(|_| Fault::unavailable("the cache is away; try again"))
    }

    /// Forgets a connection, here and in the routes.
    pub async fn goodbye(&self, connection: &Connection) {
        self.hub.remove(connection);
        let user = &connection.identity.user;
        if let Err(error) = self.services.cache.disconnect(&self.app, user, &connection.id).await {
            tracing::debug!(%error, "a route was left to expire");
        }
    }

    /// Closes the connections of a session, on all gateways.
    pub async fn disconnect(&self, user: &str, session: &str) {
        self.hub.disconnect(user, session, i64::MAX, &revoked());
        self.disconnect_elsewhere(user, session, 0).await;
    }

    /// Tells the other gateways that hold connections of a user to close those of a session.
    async fn disconnect_elsewhere(&self, user: &str, session: &str, replaced_at_ms: i64) {
        let request = DisconnectRequest {
            session: session.into(),
            app: self.app.clone(),
            user: user.into(),
            replaced_at_ms,
        };
        let routes = self.services.cache.routes(&self.app, &[user]).await.unwrap_or_default();
        for gateway in routes.into_iter().flatten().filter(|gateway| **gateway != *self.address) {
            let mut peer = GatewayServiceClient::new(Caller::new((self.services.gateways)(&gateway)));
            if let Err(error) = peer.disconnect(request.clone()).await {
                tracing::warn!(%gateway, %error, "a gateway was not told to close a session; it finds out by itself");
            }
        }
    }
}
