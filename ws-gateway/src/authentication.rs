//! Authentication: accounts, sessions, and the identity behind an access token.

use crate::{
    dependencies::DbClient,
    hub::Identity,
    password::Passwords,
    token::{Tokens, refresh::RefreshToken},
};
use abi::{
    ApiError,
    config::Auth,
    error::ErrorCode,
    v1::{
        CreateSessionRequest, CreateUserRequest, GetSessionRequest, GetUserRequest, RevokeSessionRequest,
        RotateSessionRequest, Session, User,
    },
};
use schemars::JsonSchema;
use serde::Serialize;
use std::time::Duration;
use utils::backoff::Backoff;
use uuid::Uuid;

/// The pauses between attempts to check a session again while db-service does not answer: short, because a log-out may have
/// been missed; growing, because every connection of the gateway asks.
const FIRST_RECHECK_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_RECHECK_PAUSE: Duration = Duration::from_secs(30);

/// Checks passwords and tokens, and keeps accounts and sessions in db-service.
#[derive(Debug)]
pub struct Authentication {
    app: String,
    is_registration_open: bool,
    passwords: Passwords,
    tokens: Tokens,
    db: DbClient,
}

/// The tokens of a session. A device connects with the access token and renews both with the refresh token.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tokens")]
pub struct Grant {
    /// The application of the server.
    app: String,
    /// User id.
    user: String,
    /// Device id.
    device: String,
    /// Session id.
    session: String,
    /// Authenticates requests until it expires.
    access_token: String,
    /// Life of the access token.
    expires_in_seconds: u64,
    /// Gets the next tokens.
    refresh_token: String,
}

/// The result of exchanging a refresh token.
pub enum Exchange {
    /// New tokens.
    Granted(Grant),
    /// db-service has ended the session. Its connections must be closed.
    Ended(Session),
}

impl Authentication {
    pub(crate) fn new(app: &str, auth: &Auth, tokens: Tokens, db: DbClient) -> Result<Self, argon2::Error> {
        Ok(Self {
            app: app.into(),
            is_registration_open: auth.registration,
            passwords: Passwords::new(auth)?,
            tokens,
            db,
        })
    }

    /// The identity behind an access token whose session is still valid.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `TOKEN_EXPIRED` or `REVOKED`.
    pub async fn identify(&self, access_token: &str) -> Result<Identity, ApiError> {
        let identity = self.tokens.verify(access_token)?;
        self.check_session(&identity).await?;
        Ok(identity)
    }

    /// Like [`Self::identify`], with the stored session and the generation of the data.
    ///
    /// # Errors
    /// Those of [`Self::identify`].
    pub async fn identify_session(&self, access_token: &str) -> Result<(Identity, Session), ApiError> {
        let identity = self.tokens.verify(access_token)?;
        let session = self.stored_session(&identity, true).await?;
        Ok((identity, session))
    }

    /// Checks that the session of an identity has not ended.
    ///
    /// # Errors
    /// `REVOKED` if it has; otherwise those of db-service.
    pub async fn check_session(&self, identity: &Identity) -> Result<(), ApiError> {
        self.stored_session(identity, false).await.map(drop)
    }

    async fn stored_session(&self, identity: &Identity, with_generation: bool) -> Result<Session, ApiError> {
        let request = GetSessionRequest {
            with_generation,
            app: self.app.clone(),
            user: identity.user.clone(),
            session: identity.session.clone(),
        };
        match self.db.clone().get_session(request).await.map_err(ApiError::from) {
            Ok(session) => Ok(session.into_inner()),
            Err(error) if error.code == ErrorCode::NotFound => {
                Err(ApiError::new(ErrorCode::Revoked, "this device was logged out; log in again"))
            }
            Err(error) => Err(error),
        }
    }

    /// Checks again that the session of a connection is valid. Repeats the check until db-service answers it.
    ///
    /// # Errors
    /// `REVOKED` if the session has ended.
    pub async fn recheck_session(&self, identity: &Identity) -> Result<(), ApiError> {
        let mut backoff = Backoff::new(FIRST_RECHECK_PAUSE, LONGEST_RECHECK_PAUSE);
        loop {
            match self.check_session(identity).await {
                Ok(()) => return Ok(()),
                Err(error) if error.code == ErrorCode::Revoked => return Err(error),
                Err(error) => tracing::debug!(%error, "cannot check a session again"),
            }
            backoff.wait().await;
        }
    }

    /// Checks that users may register.
    ///
    /// # Errors
    /// `FORBIDDEN` if not.
    pub fn check_registration(&self) -> Result<(), ApiError> {
        match self.is_registration_open {
            true => Ok(()),
            false => Err(ApiError::forbidden("registration is closed on this server")),
        }
    }

    /// Creates an account.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`, or `INVALID_REQUEST` for a password that is too short or too long.
    pub async fn create_account(&self, user: &str, password: String) -> Result<(), ApiError> {
        let password_hash = self.passwords.hash(password).await?;
        let account = User { app: self.app.clone(), user: user.into(), password_hash };
        self.db.clone().create_user(CreateUserRequest { user: Some(account) }).await?;
        Ok(())
    }

    /// Checks the password of an account.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a wrong user or password.
    pub async fn check_password(&self, user: &str, password: String) -> Result<(), ApiError> {
        let request = GetUserRequest { app: self.app.clone(), user: user.into() };
        let hash = match self.db.clone().get_user(request).await.map_err(ApiError::from) {
            Ok(account) => Some(account.into_inner().password_hash),
            Err(error) if error.code == ErrorCode::NotFound => None,
            Err(error) => return Err(error),
        };
        match self.passwords.verify(password, hash).await? {
            true => Ok(()),
            false => Err(ApiError::new(ErrorCode::Unauthenticated, "the user or the password is wrong")),
        }
    }

    /// Opens a session for a device. The ids in the result are those of earlier sessions of the device, which are ended.
    ///
    /// # Errors
    /// Those of db-service.
    pub async fn open_session(&self, user: String, device: String) -> Result<(Grant, Vec<String>), ApiError> {
        let identity = Identity { user, device, session: Uuid::new_v4().simple().to_string() };
        let refresh_token = self.tokens.first_refresh(&identity.user, &identity.session)?;
        let request = CreateSessionRequest {
            session: Some(Session {
                session: identity.session.clone(),
                app: self.app.clone(),
                user: identity.user.clone(),
                device: identity.device.clone(),
                ..Session::default()
            }),
            refresh_hash: RefreshToken::parse(&refresh_token)?.hash(),
        };
        let ended = self.db.clone().create_session(request).await?.into_inner().revoked;
        Ok((self.grant(identity, refresh_token)?, ended))
    }

    /// Exchanges a refresh token for new tokens.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a token that is malformed, unknown, replaced, or of another application.
    pub async fn exchange(&self, refresh_token: &str) -> Result<Exchange, ApiError> {
        let presented = RefreshToken::parse(refresh_token)?;
        let next = self.tokens.next_refresh(&presented)?;
        let request = RotateSessionRequest {
            app: self.app.clone(),
            user: presented.user.into(),
            session: presented.session.into(),
            refresh_hash: presented.hash(),
            next_refresh_hash: RefreshToken::parse(&next)?.hash(),
            number: self.tokens.proven_number(&presented).unwrap_or_default(),
        };
        let session = self.db.clone().rotate_session(request).await?.into_inner();
        if session.ended {
            return Ok(Exchange::Ended(session));
        }
        let identity = Identity { user: session.user, device: session.device, session: session.session };
        Ok(Exchange::Granted(self.grant(identity, next)?))
    }

    /// Ends the session of an identity.
    ///
    /// # Errors
    /// Those of db-service.
    pub async fn end_session(&self, identity: &Identity) -> Result<(), ApiError> {
        let request = RevokeSessionRequest {
            app: self.app.clone(),
            user: identity.user.clone(),
            session: identity.session.clone(),
        };
        self.db.clone().revoke_session(request).await?;
        Ok(())
    }

    fn grant(&self, identity: Identity, refresh_token: String) -> Result<Grant, ApiError> {
        Ok(Grant {
            app: self.app.clone(),
            access_token: self.tokens.issue(&identity)?,
            expires_in_seconds: self.tokens.lifetime().as_secs(),
            user: identity.user,
            device: identity.device,
            session: identity.session,
            refresh_token,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::{Caller, config::Config, v1::SigningKey};
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };
    use tokio::time::Instant;
    use tonic::{Status, body::Body};
    use tower::{service_fn, util::BoxCloneSyncService};

    /// db-service fails this many calls. Then it has no session.
    fn authentication(failures: u32) -> Authentication {
        let calls = Arc::new(AtomicU32::new(0));
        let channel = BoxCloneSyncService::new(service_fn(move |_: http::Request<Body>| {
            let status = match calls.fetch_add(1, Ordering::Relaxed) {
                call if call < failures => Status::unavailable("no connection"),
                _ => Status::not_found("there is no such session"),
            };
            std::future::ready(Ok(status.into_http()))
        }));
        let config = Config::default();
        let key = SigningKey { id: "k".into(), secret: vec![7; 32].into() };
        let tokens = Tokens::new(config.app.clone(), config.auth.access_token_life, &[key]).unwrap();
        Authentication::new(&config.app, &config.auth, tokens, DbClient::new(Caller::new(channel))).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn p8_a_recheck_is_repeated_within_half_a_minute_while_db_service_is_away() {
        let identity = Identity { user: "alice".into(), device: "phone".into(), session: "s".into() };
        for (failures, shortest, longest) in [(0, 0, 1), (1, 1, 3), (100, 1_200, 3_000)] {
            let began = Instant::now();
            let error = authentication(failures).recheck_session(&identity).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::Revoked);
            let seconds = began.elapsed().as_secs();
            assert!((shortest..=longest).contains(&seconds), "{failures} failures took {seconds} s");
        }
    }
}
