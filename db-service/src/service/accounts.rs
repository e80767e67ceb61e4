//! Accounts and sessions.

use super::{Service, check_user};
use crate::sessions::{Rotation, SessionKey};
use abi::{
    ApiError,
    error::ErrorCode,
    ids,
    v1::{CreateSessionRequest, RotateSessionRequest, Session, User},
};

/// Longest hash of a password, in bytes.
const MAX_PASSWORD_HASH: usize = 512;

impl Service {
    /// Creates an account.
    pub(super) async fn register_user(&self, user: User) -> Result<(), ApiError> {
        check_user(&user.app, &user.user)?;
        let hash = &user.password_hash;
        if hash.len() > MAX_PASSWORD_HASH || !hash.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiError::invalid(format!(
                "password_hash must be at most {MAX_PASSWORD_HASH} printable ASCII characters"
            )));
        }
        if self.users.create_user(user.app, user.user, user.password_hash).await? {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::AlreadyExists, "this user id is taken"))
    }

    /// Creates a session. Returns the ids of the device's earlier sessions.
    pub(super) async fn open_session(&self, request: CreateSessionRequest) -> Result<Vec<String>, ApiError> {
        let session = request.session.unwrap_or_default();
        ids::check_id("session", &session.session)?;
        check_user(&session.app, &session.user)?;
        ids::check_id("device", &session.device)?;
        check_hash("refresh_hash", &request.refresh_hash)?;
        Ok(self.users.create_session(session, request.refresh_hash.to_vec()).await?)
    }

    /// Exchanges a refresh token.
    pub(super) async fn rotate(&self, request: RotateSessionRequest) -> Result<Session, ApiError> {
        let key = session_key(request.app, request.user, request.session)?;
        check_hash("refresh_hash", &request.refresh_hash)?;
        check_hash("next_refresh_hash", &request.next_refresh_hash)?;
        let rotation = Rotation {
            presented: request.refresh_hash.to_vec(),
            next: request.next_refresh_hash.to_vec(),
            number: (request.number > 0).then_some(request.number.into()),
        };
        let rotated = self.users.rotate_session(key, rotation).await?;
        rotated.ok_or_else(|| {
            ApiError::new(
                ErrorCode::Unauthenticated,
                "the refresh token is not valid: it was replaced, or the device was logged out; \
                 use the newest token of the device, or log in again",
            )
        })
    }
}

/// The key of a session whose parts are valid.
pub(super) fn session_key(app: String, user: String, session: String) -> Result<SessionKey, ApiError> {
    check_user(&app, &user)?;
    ids::check_id("session", &session)?;
    Ok(SessionKey { app, user, session })
}

fn check_hash(name: &str, hash: &[u8]) -> Result<(), ApiError> {
    if hash.len() == 32 { Ok(()) } else { Err(ApiError::invalid(format!("{name} must be 32 bytes"))) }
}
