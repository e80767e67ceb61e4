//! Errors over HTTP: RFC 9457 problem documents, and the extractors that make them.

use crate::{backend::Backend, hub::Identity};
use abi::{Fault, error::ErrorCode, retry_after};
use axum::{
    extract::{ConnectInfo, FromRequest, FromRequestParts, Request},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// An error that goes out as a problem document.
#[derive(Debug)]
pub struct Problem(pub Fault);

impl<T: Into<Fault>> From<T> for Problem {
    fn from(fault: T) -> Self {
        Self(fault.into())
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u32>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(fault) = self;
        respond(fault.code.http(), &fault)
    }
}

fn respond(status: u16, fault: &Fault) -> Response {
    let name = fault.code.name();
    let document = Document {
        r#type: format!("urn:godwit:error:{name}"),
        title: StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or(name),
        status,
        detail: &fault.message,
        code: name,
        retry_after_ms: fault.retry_after.map(|wait| retry_after(Some(wait))),
    };
    let body = serde_json::to_vec(&document).expect("a problem document always has a JSON form");
    let mut response = (
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        [(header::CONTENT_TYPE, "application/problem+json")],
        body,
    )
        .into_response();
    if let Some(wait) = fault.retry_after {
        let seconds = HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    if status == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// There is nothing at this path.
pub async fn no_such_path() -> Response {
    respond(404, &Fault::not_found("there is nothing at this path; see docs/protocol.md"))
}

/// The path does not take this method.
pub async fn no_such_method() -> Response {
    respond(405, &Fault::invalid("this path does not take that method; see docs/protocol.md"))
}

/// A JSON body, at most as large as a frame.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Backend>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, backend: &Arc<Backend>) -> Result<Self, Problem> {
        let most = backend.max_frame;
        let bytes = axum::body::to_bytes(request.into_body(), most).await.map_err(|_| {
            Fault::new(ErrorCode::TooLarge, format!("the body is cut off or larger than {most} bytes"))
        })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Fault::invalid(format!("the body is not what this path takes: {error}")).into())
    }
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

/// The client's address, for limits.
pub struct Address(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let ConnectInfo(address) = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .ok_or_else(|| Fault::new(ErrorCode::Internal, "the connection has no address"))?;
        Ok(Self(address.ip()))
    }
}
