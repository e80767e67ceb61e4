//! Register, log in, refresh, log out.

use crate::{
    backend::Backend,
    hub::Identity,
    problem::{Address, Authorized, Json, Problem},
};
use abi::{
    ApiError,
    error::ErrorCode,
    ids,
    v1::{
        CreateSessionRequest, CreateUserRequest, GetUserRequest, RevokeSessionRequest, RotateSessionRequest,
        Session, User,
    },
};
use axum::{extract::State, http::StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use uuid::Uuid;

/// Who wants in, and from where.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    user: String,
    password: String,
    device: String,
}

/// A refresh token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    refresh_token: String,
}

/// What a device needs to connect, and to stay connected.
#[derive(Serialize)]
pub struct Tokens {
    app: String,
    user: String,
    device: String,
    session: String,
    access_token: String,
    expires_in_seconds: u64,
    refresh_token: String,
}

/// Only the SHA-256 of a refresh token is stored.
fn hash(refresh_token: &str) -> Bytes {
    Sha256::digest(refresh_token).to_vec().into()
}

/// `POST /v1/accounts`
pub async fn register(
    State(backend): State<Arc<Backend>>,
    Address(address): Address,
    Json(credentials): Json<Credentials>,
) -> Result<(StatusCode, axum::Json<Tokens>), Problem> {
    if !backend.auth.registration {
        return Err(ApiError::forbidden("registration is closed on this server").into());
    }
    backend.limits.authenticate(address)?;
    let Credentials { user, password, device } = credentials;
    ids::check_id("user", &user)?;
    ids::check_id("device", &device)?;
    backend.limits.account(&user)?;
    let password_hash = backend.passwords.hash(password).await?;
    let account = User { app: backend.app.clone(), user: user.clone(), password_hash };
    backend.db().create_user(CreateUserRequest { user: Some(account) }).await?;
    Ok((StatusCode::CREATED, axum::Json(open_session(&backend, user, device).await?)))
}

/// `POST /v1/sessions`
pub async fn log_in(
    State(backend): State<Arc<Backend>>,
    Address(address): Address,
    Json(credentials): Json<Credentials>,
) -> Result<(StatusCode, axum::Json<Tokens>), Problem> {
    backend.limits.authenticate(address)?;
    let Credentials { user, password, device } = credentials;
    ids::check_id("user", &user)?;
    ids::check_id("device", &device)?;
    backend.limits.account(&user)?;
    let request = GetUserRequest { app: backend.app.clone(), user: user.clone() };
    let hash = match backend.db().get_user(request).await.map_err(ApiError::from) {
        Ok(account) => Some(account.into_inner().password_hash),
        Err(fault) if fault.code == ErrorCode::NotFound => None,
        Err(fault) => return Err(fault.into()),
    };
    if !backend.passwords.verify(password, hash).await? {
        return Err(ApiError::new(ErrorCode::Unauthenticated, "the user or the password is wrong").into());
    }
    Ok((StatusCode::CREATED, axum::Json(open_session(&backend, user, device).await?)))
}

/// `POST /v1/sessions/refresh`
pub async fn refresh(
    State(backend): State<Arc<Backend>>,
    Address(address): Address,
    Json(Refresh { refresh_token }): Json<Refresh>,
) -> Result<axum::Json<Tokens>, Problem> {
    backend.limits.authenticate(address)?;
    let (session, _) = refresh_token.split_once('.').ok_or_else(|| {
        ApiError::new(ErrorCode::Unauthenticated, "the refresh token is malformed; log in again")
    })?;
    let next = backend.tokens.issue_next_refresh(session, &refresh_token)?;
    let request = RotateSessionRequest {
        session: session.into(),
        refresh_hash: hash(&refresh_token),
        next_refresh_hash: hash(&next),
        issued: backend.tokens.has_issued(&refresh_token),
    };
    let its_backend = backend.clone();
    let refreshed = async move {
        let rotated = its_backend.db().rotate_session(request).await.map_err(ApiError::from);
        let session = rotated.map_err(|fault| match fault.code {
            ErrorCode::InvalidRequest | ErrorCode::NotFound => no_refresh_token(),
            _ => fault,
        })?;
        let session = session.into_inner();
        if session.app != its_backend.app {
            return Err(ApiError::new(
                ErrorCode::Unauthenticated,
                "the refresh token is for another application",
            ));
        }
        if session.ended {
            its_backend.disconnect(&session.user, &session.session).await;
            return Err(no_refresh_token());
        }
        let identity = Identity { user: session.user, device: session.device, session: session.session };
        tokens(&its_backend, identity, next)
    };
    Ok(axum::Json(backend.finish(refreshed).await?))
}

/// `DELETE /v1/sessions/current`
pub async fn log_out(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
) -> Result<StatusCode, Problem> {
    let Identity { user, session, .. } = identity;
    let its_backend = backend.clone();
    let ended = async move {
        its_backend.db().revoke_session(RevokeSessionRequest { session: session.clone() }).await?;
        its_backend.disconnect(&user, &session).await;
        Ok(StatusCode::NO_CONTENT)
    };
    Ok(backend.finish(ended).await?)
}

fn no_refresh_token() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, "this is no refresh token that is good; log in again")
}

async fn open_session(backend: &Arc<Backend>, user: String, device: String) -> Result<Tokens, ApiError> {
    let identity = Identity { user, device, session: Uuid::new_v4().simple().to_string() };
    let refresh_token = backend.tokens.issue_refresh(&identity.session)?;
    let request = CreateSessionRequest {
        session: Some(Session {
            session: identity.session.clone(),
            app: backend.app.clone(),
            user: identity.user.clone(),
            device: identity.device.clone(),
            ..Session::default()
        }),
        refresh_hash: hash(&refresh_token),
    };
    let its_backend = backend.clone();
    let opened = async move {
        let replaced = its_backend.db().create_session(request).await?.into_inner().revoked;
        for session in replaced {
            its_backend.disconnect(&identity.user, &session).await;
        }
        tokens(&its_backend, identity, refresh_token)
    };
    backend.finish(opened).await
}

fn tokens(backend: &Backend, identity: Identity, refresh_token: String) -> Result<Tokens, ApiError> {
    Ok(Tokens {
        app: backend.app.clone(),
        access_token: backend.tokens.issue(&identity)?,
        expires_in_seconds: backend.tokens.life().as_secs(),
        user: identity.user,
        device: identity.device,
        session: identity.session,
        refresh_token,
    })
}
