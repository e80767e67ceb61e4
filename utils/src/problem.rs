//! Errors over HTTP: RFC 9457 problem documents, and extractors whose rejections are such documents.

use abi::{ApiError, error::excerpt, retry_after};
use axum::{
    extract::{self, FromRequestParts},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};

/// An error that is sent as a problem document.
#[derive(Debug)]
pub struct Problem(pub ApiError);

impl<T: Into<ApiError>> From<T> for Problem {
    fn from(error: T) -> Self {
        Self(error.into())
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
        let Self(error) = self;
        respond(error.code.http(), &error)
    }
}

/// The problem document of an error, with the given HTTP status instead of the status of its code.
pub fn respond(status: u16, error: &ApiError) -> Response {
    let name = error.code.name();
    let document = Document {
        r#type: format!("urn:godwit:error:{name}"),
        title: StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or(name),
        status,
        detail: &error.message,
        code: name,
        retry_after_ms: error.retry_after.map(|wait| retry_after(Some(wait))),
    };
    let body = serde_json::to_vec(&document).expect("a problem document can always be serialized");
    let mut response = (
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        [(header::CONTENT_TYPE, "application/problem+json")],
        body,
    )
        .into_response();
    if let Some(wait) = error.retry_after {
        let seconds = HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    if status == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The parameters of a path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(path)) => Ok(Self(path)),
            Err(error) => {
                Err(ApiError::invalid(format!("the path cannot be read: {}", excerpt(error.body_text())))
                    .into())
            }
        }
    }
}

/// The query parameters of a URL.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(query)) => Ok(Self(query)),
            Err(error) => {
                let message = format!("the query after '?' cannot be read: {}", excerpt(error.body_text()));
                Err(ApiError::invalid(message).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::error::ErrorCode;
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    #[tokio::test]
    async fn p7_an_unreadable_path_or_query_gets_a_problem_document() {
        let uri = format!("/v1/groups/g:1/members/bob?{}=1", "x".repeat(5_000));
        let (mut parts, ()) = http::Request::builder().uri(uri).body(()).unwrap().into_parts();
        let Err(Problem(query)) = Query::<Nothing>::from_request_parts(&mut parts, &()).await else {
            panic!("an unknown parameter was accepted");
        };
        let Err(Problem(path)) = Path::<String>::from_request_parts(&mut parts, &()).await else {
            panic!("a path without a route was accepted");
        };
        for error in [query, path] {
            assert_eq!(error.code, ErrorCode::InvalidRequest);
            assert!(error.message.len() < 500, "{error}");
        }
    }
}
