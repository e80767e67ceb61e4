//! Errors over HTTP: RFC 9457 problem documents, and the extractors that make them.

pub use utils::problem::{Path, Problem, Query};

use crate::{backend::Backend, hub::Identity};
use abi::{
    ApiError,
    error::{ErrorCode, excerpt},
    json::describe,
};
use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Request},
    http::{Method, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::time::timeout;
use utils::problem::respond;

/// How long a client may take to send the head of a request, and then its body.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The response for an unknown path.
pub async fn no_such_path() -> Response {
    respond(404, &ApiError::not_found("there is no such path; see /docs"))
}

/// The response for an unknown method. The router adds `Allow` with the methods of the path, which is the answer to `OPTIONS`.
pub async fn no_such_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    respond(405, &ApiError::invalid("this path does not support that method; see /docs"))
}

/// A JSON body, limited to the size of a frame.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Backend>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, backend: &Arc<Backend>) -> Result<Self, Problem> {
        if let Some(encoding) = request.headers().get(header::CONTENT_ENCODING)
            && encoding != "identity"
        {
            let encoding = excerpt(String::from_utf8_lossy(encoding.as_bytes()));
            return Err(ApiError::invalid(format!(
                "the body has Content-Encoding {encoding}; send it uncompressed, without this header"
            ))
            .into());
        }
        let bytes = read(request.into_body(), backend.limits().max_frame).await?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            ApiError::invalid(format!("the body is not valid for this path: {}", excerpt(describe(&error))))
                .into()
        })
    }
}

/// Reads a body of at most `limit` bytes. It has a timeout, because a client that never sends the body would occupy a
/// connection forever.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let bytes = timeout(REQUEST_TIMEOUT, axum::body::to_bytes(body, limit)).await.map_err(|_| {
        let seconds = REQUEST_TIMEOUT.as_secs();
        ApiError::new(
            ErrorCode::IdleTimeout,
            format!("the body did not arrive within {seconds} s of the request head; send the request again"),
        )
    })?;
    bytes.map_err(|_| {
        ApiError::new(ErrorCode::TooLarge, format!("the body is incomplete or larger than {limit} bytes"))
    })
}

/// The identity behind the access token in `Authorization: Bearer`.
pub struct Authorized(pub Identity);

impl FromRequestParts<Arc<Backend>> for Authorized {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, backend: &Arc<Backend>) -> Result<Self, Problem> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(bearer_token).unwrap_or_default();
        Ok(Self(backend.authentication().identify(token).await?))
    }
}

/// Like [`Authorized`], for requests that have no rate limit of their own: it counts the request of the user.
pub struct Counted(pub Identity);

impl FromRequestParts<Arc<Backend>> for Counted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, backend: &Arc<Backend>) -> Result<Self, Problem> {
        let Authorized(identity) = Authorized::from_request_parts(parts, backend).await?;
        backend.rate_limits().request(&identity.user)?;
        Ok(Self(identity))
    }
}

/// The token of `Bearer TOKEN`. The name of the scheme has no case, and any number of spaces may follow it (RFC 9110).
fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The client's address, which the server adds to each request.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// Extracts the client's address, for rate limits.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authorization_scheme_has_no_case() {
        for header in ["Bearer a.b.c", "bearer a.b.c", "BEARER  a.b.c "] {
            assert_eq!(bearer_token(header), Some("a.b.c"), "{header}");
        }
        for header in ["", "Bearer", "a.b.c", "Basic a.b.c", "Bearera.b.c"] {
            assert_eq!(bearer_token(header), None, "{header}");
        }
    }
}
