//! Accounts over HTTP: register, log in, refresh, log out.

use crate::{
    authentication::{Exchange, Grant},
    backend::Backend,
    problem::{Address, Authorized, Json, Problem},
};
use abi::{ApiError, error::ErrorCode, ids};
use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use std::{net::IpAddr, sync::Arc};

/// The body of a registration or a log-in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    user: String,
    password: String,
    device: String,
}

/// The body of a refresh.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    refresh_token: String,
}

/// `POST /v1/accounts`
pub async fn register(
    State(backend): State<Arc<Backend>>,
    Address(address): Address,
    Json(credentials): Json<Credentials>,
) -> Result<(StatusCode, axum::Json<Grant>), Problem> {
    backend.authentication().check_registration()?;
    let Credentials { user, password, device } = check(&backend, address, credentials)?;
    backend.authentication().create_account(&user, password).await?;
    Ok((StatusCode::CREATED, axum::Json(open_session(&backend, user, device).await?)))
}

/// `POST /v1/sessions`
pub async fn log_in(
    State(backend): State<Arc<Backend>>,
    Address(address): Address,
    Json(credentials): Json<Credentials>,
) -> Result<(StatusCode, axum::Json<Grant>), Problem> {
    let Credentials { user, password, device } = check(&backend, address, credentials)?;
    backend.authentication().check_password(&user, password).await?;
    Ok((StatusCode::CREATED, axum::Json(open_session(&backend, user, device).await?)))
}

/// `POST /v1/sessions/refresh`
pub async fn refresh(
    State(backend): State<Arc<Backend>>,
    Address(address): Address,
    Json(Refresh { refresh_token }): Json<Refresh>,
) -> Result<axum::Json<Grant>, Problem> {
    backend.rate_limits().authenticate(address)?;
    let parts = backend.clone();
    let exchanged = async move {
        match parts.authentication().exchange(&refresh_token).await? {
            Exchange::Granted(grant) => Ok(grant),
            Exchange::Ended(session) => {
                parts.connections().disconnect(&session.user, &session.session).await;
                Err(ApiError::new(
                    ErrorCode::Unauthenticated,
                    "an old refresh token was used, which someone may have stolen: this device was logged out; log in again",
                ))
            }
        }
    };
    Ok(axum::Json(backend.request_tasks().complete(exchanged).await?))
}

/// `DELETE /v1/sessions/current`
pub async fn log_out(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
) -> Result<StatusCode, Problem> {
    let parts = backend.clone();
    let ended = async move {
        parts.authentication().end_session(&identity).await?;
        parts.connections().disconnect(&identity.user, &identity.session).await;
        Ok(StatusCode::NO_CONTENT)
    };
    Ok(backend.request_tasks().complete(ended).await?)
}

/// Checks rate limits and ids before a password is hashed or compared.
fn check(backend: &Backend, address: IpAddr, credentials: Credentials) -> Result<Credentials, ApiError> {
    backend.rate_limits().authenticate(address)?;
    ids::check_id("user", &credentials.user)?;
    ids::check_id("device", &credentials.device)?;
    backend.rate_limits().account(&credentials.user)?;
    Ok(credentials)
}

async fn open_session(backend: &Arc<Backend>, user: String, device: String) -> Result<Grant, ApiError> {
    let parts = backend.clone();
    let opened = async move {
        let (grant, ended) = parts.authentication().open_session(user.clone(), device).await?;
        for session in ended {
            parts.connections().disconnect(&user, &session).await;
        }
        Ok(grant)
    };
    backend.request_tasks().complete(opened).await
}
