//! Errors over HTTP: RFC 9457 problem documents.

use abi::{Fault, retry_after};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

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

/// The problem document of a fault, with another status than that of its code.
pub fn respond(status: u16, fault: &Fault) -> Response {
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
