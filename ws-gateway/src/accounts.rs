//! Accounts over HTTP: register, log in, refresh, log out.

use crate::{
    authentication::{Exchange, Grant},
    backend::Backend,
    operation::{Operation, Tag, operation},
    problem::{Address, Authorized, Json, Problem},
};
use abi::{ApiError, error::ErrorCode, ids};
use axum::{
    extract::State,
    http::{Method, StatusCode},
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::{net::IpAddr, sync::Arc};

/// The body of a registration or a log-in.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// User id.
    #[schemars(length(min = 1, max = 64))]
    user: String,
    /// Password, 8 to 1,024 bytes.
    #[schemars(length(min = 1, max = 1_024))]
    password: String,
    /// Id of the device that logs in.
    #[schemars(length(min = 1, max = 64))]
    device: String,
}

/// The body of a refresh.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "RefreshTokens")]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    /// The newest refresh token of the device.
    refresh_token: String,
}

/// The operations on accounts.
pub(crate) fn operations() -> Vec<Operation<Arc<Backend>>> {
    use ErrorCode::{AlreadyExists, Forbidden, RateLimited, Unauthenticated};
    const TOKENS: &str = "The tokens of the device.";
    vec![
        operation(Method::POST, "/v1/accounts", "register", register)
            .about(Tag::Accounts, "Create an account and log its first device in")
            .public()
            .body::<Credentials>()
            .answer::<Grant>(201, TOKENS)
            .errors(&[AlreadyExists, Forbidden, RateLimited]),
        operation(Method::POST, "/v1/sessions", "logIn", log_in)
            .about(Tag::Accounts, "Log a device in")
            .describe("Earlier sessions of the device are revoked.")
            .public()
            .body::<Credentials>()
            .answer::<Grant>(201, TOKENS)
            .errors(&[Unauthenticated, RateLimited]),
        operation(Method::POST, "/v1/sessions/refresh", "refreshTokens", refresh)
            .about(Tag::Accounts, "Exchange a refresh token for new tokens")
            .public()
            .body::<Refresh>()
            .answer::<Grant>(200, TOKENS)
            .errors(&[Unauthenticated, RateLimited]),
        operation(Method::DELETE, "/v1/sessions/current", "logOut", log_out)
            .about(Tag::Accounts, "Log the device out")
            .no_body(204, "The session has ended, and the device's connection is closed."),
    ]
}

async fn register(
    State(backend): State<Arc<Backend>>,
    Address(address): Address,
    Json(credentials): Json<Credentials>,
) -> Result<(StatusCode, axum::Json<Grant>), Problem> {
    backend.authentication().check_registration()?;
    let Credentials { user, password, device } = check(&backend, address, credentials)?;
    backend.authentication().create_account(&user, password).await?;
    Ok((StatusCode::CREATED, axum::Json(open_session(&backend, user, device).await?)))
}

async fn log_in(
    State(backend): State<Arc<Backend>>,
    Address(address): Address,
    Json(credentials): Json<Credentials>,
) -> Result<(StatusCode, axum::Json<Grant>), Problem> {
    let Credentials { user, password, device } = check(&backend, address, credentials)?;
    backend.authentication().check_password(&user, password).await?;
    Ok((StatusCode::CREATED, axum::Json(open_session(&backend, user, device).await?)))
}

async fn refresh(
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

async fn log_out(
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
