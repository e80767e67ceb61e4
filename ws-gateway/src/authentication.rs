//! Authentication: accounts, sessions, and the identity behind an access token.

use crate::{dependencies::DbClient, hub::Identity, password::Passwords, token::Tokens};
use abi::{
    ApiError,
    config::Auth,
    error::ErrorCode,
    v1::{
        CreateSessionRequest, CreateUserRequest, GetSessionRequest, GetUserRequest, RevokeSessionRequest,
        RotateSessionRequest, Session, User,
    },
};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

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
#[derive(Serialize)]
pub struct Grant {
    app: String,
    user: String,
    device: String,
    session: String,
    access_token: String,
    expires_in_seconds: u64,
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
        Ok(self.identify_session(access_token).await?.0)
    }

    /// Like [`Self::identify`], with the stored session.
    ///
    /// # Errors
    /// Those of [`Self::identify`].
    pub async fn identify_session(&self, access_token: &str) -> Result<(Identity, Session), ApiError> {
        let identity = self.tokens.verify(access_token)?;
        let session = self.check_session(&identity).await?;
        Ok((identity, session))
    }

    /// The stored session of an identity.
    ///
    /// # Errors
    /// `REVOKED` if the session has ended; otherwise those of db-service.
    pub async fn check_session(&self, identity: &Identity) -> Result<Session, ApiError> {
        let request = GetSessionRequest { session: identity.session.clone() };
        match self.db.clone().get_session(request).await.map_err(ApiError::from) {
            Ok(session) => Ok(session.into_inner()),
            Err(error) if error.code == ErrorCode::NotFound => {
                Err(ApiError::new(ErrorCode::Revoked, "this device was logged out; log in again"))
            }
            Err(error) => Err(error),
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
        let refresh_token = self.tokens.issue_refresh(&identity.session)?;
        let request = CreateSessionRequest {
            session: Some(Session {
                session: identity.session.clone(),
                app: self.app.clone(),
                user: identity.user.clone(),
                device: identity.device.clone(),
                ..Session::default()
            }),
            refresh_hash: hash(&refresh_token),
        };
        let ended = self.db.clone().create_session(request).await?.into_inner().revoked;
        Ok((self.grant(identity, refresh_token)?, ended))
    }

    /// Exchanges a refresh token for new tokens.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a token that is malformed, unknown, or of another application.
    pub async fn exchange(&self, refresh_token: &str) -> Result<Exchange, ApiError> {
        let (session, _) = refresh_token.split_once('.').ok_or_else(|| {
            ApiError::new(ErrorCode::Unauthenticated, "the refresh token is malformed; log in again")
        })?;
        let next = self.tokens.issue_next_refresh(session, refresh_token)?;
        let request = RotateSessionRequest {
            session: session.into(),
            refresh_hash: hash(refresh_token),
            next_refresh_hash: hash(&next),
            issued: self.tokens.has_issued(refresh_token),
        };
        let rotated = self.db.clone().rotate_session(request).await.map_err(ApiError::from);
        let session = rotated.map_err(|error| match error.code {
            ErrorCode::InvalidRequest | ErrorCode::NotFound => invalid_refresh_token(),
            _ => error,
        })?;
        let session = session.into_inner();
        if session.app != self.app {
            return Err(ApiError::new(
                ErrorCode::Unauthenticated,
                "the refresh token is for another application",
            ));
        }
        if session.ended {
            return Ok(Exchange::Ended(session));
        }
        let identity = Identity { user: session.user, device: session.device, session: session.session };
        Ok(Exchange::Granted(self.grant(identity, next)?))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// Those of db-service.
    pub async fn end_session(&self, session: &str) -> Result<(), ApiError> {
        self.db.clone().revoke_session(RevokeSessionRequest { session: session.into() }).await?;
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

/// The error for a refresh token that can't be exchanged.
pub fn invalid_refresh_token() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, "the refresh token is not valid; log in again")
}

/// Only the SHA-256 of a refresh token is stored.
fn hash(refresh_token: &str) -> Bytes {
    Sha256::digest(refresh_token).to_vec().into()
}
