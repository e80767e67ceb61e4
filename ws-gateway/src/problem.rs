//! Errors over HTTP: RFC 9457 problem documents, and the extractors that make them.

pub use utils::problem::{Path, Problem, Query};

use crate::{backend::Backend, hub::Identity, serve::REQUEST_TIMEOUT};
use abi::{
    ApiError,
    error::{ErrorCode, excerpt},
};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{header, request::Parts},
    response::Response,
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::{net::IpAddr, sync::Arc};
use tokio::time::timeout;
use utils::problem::respond;

/// There is nothing at this path.
pub async fn no_such_path() -> Response {
    respond(404, &ApiError::not_found("there is nothing at this path; see docs/protocol.md"))
}

/// The path does not take this method.
pub async fn no_such_method() -> Response {
    respond(405, &ApiError::invalid("this path does not take that method; see docs/protocol.md"))
}

/// A JSON body, at most as large as a frame.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Backend>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, backend: &Arc<Backend>) -> Result<Self, Problem> {
        let bytes = read(request.into_body(), backend.max_frame).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            ApiError::invalid(format!("the body is not what this path takes: {}", excerpt(error))).into()
        })
    }
}

/// A whole body of `most` bytes at most. It has to come in time: whoever sends a request and never its body would hold a
/// connection for ever.
pub(crate) async fn read(body: Body, most: usize) -> Result<Bytes, ApiError> {
    let bytes = timeout(REQUEST_TIMEOUT, axum::body::to_bytes(body, most)).await.map_err(|_| {
        let seconds = REQUEST_TIMEOUT.as_secs();
        ApiError::new(
            ErrorCode::IdleTimeout,
            format!("the body did not come within {seconds} s of the head; send the request again"),
        )
    })?;
    bytes.map_err(|_| {
        ApiError::new(ErrorCode::TooLarge, format!("the body is cut off or larger than {most} bytes"))
    })
}

/// The user behind the access token of `Authorization: Bearer`.
pub struct Authorized(pub Identity);

impl FromRequestParts<Arc<Backend>> for Authorized {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, backend: &Arc<Backend>) -> Result<Self, Problem> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        Ok(Self(backend.authenticate(token).await?))
    }
}

/// Where a request comes from; put in by the server that took the connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// The client's address, for limits.
pub struct Address(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let ClientAddress(address) = parts
            .extensions
            .get()
            .ok_or_else(|| ApiError::new(ErrorCode::Internal, "the connection has no address"))?;
        Ok(Self(*address))
    }
}
