//! Errors over HTTP: RFC 9457 problem documents, and extractors whose rejections are such documents.

use abi::{
    ApiError,
    error::{excerpt, quoted},
    retry_after,
};
use axum::{
    body::Body,
    extract::{
        self, FromRequestParts,
        path::ErrorKind,
        rejection::{PathRejection, QueryRejection},
    },
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
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// The error behind a problem document. An extension of the response, so that [`identify`] can add the request id.
#[derive(Clone)]
struct Cause {
    status: u16,
    error: ApiError,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(error) = self;
        respond(error.code.http(), &error)
    }
}

/// The problem document of an error, with the given HTTP status instead of the status of its code.
pub fn respond(status: u16, error: &ApiError) -> Response {
    let mut response = (
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        [(header::CONTENT_TYPE, "application/problem+json")],
        document(status, error, None),
    )
        .into_response();
    response.extensions_mut().insert(Cause { status, error: error.clone() });
    if let Some(wait) = error.retry_after {
        let seconds = HeaderValue::from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    if status == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Adds the id of the request to a response that is a problem document. Returns the error.
pub fn identify(response: &mut Response, request_id: &str) -> Option<ApiError> {
    let Cause { status, error } = response.extensions_mut().remove()?;
    // The HTTP library adds the length of the new body.
    response.headers_mut().remove(header::CONTENT_LENGTH);
    *response.body_mut() = Body::from(document(status, &error, Some(request_id)));
    Some(error)
}

fn document(status: u16, error: &ApiError, request_id: Option<&str>) -> Vec<u8> {
    let name = error.code.name();
    let document = Document {
        r#type: format!("urn:godwit:error:{name}"),
        title: StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or(name),
        status,
        detail: &error.message,
        code: name,
        retry_after_ms: error.retry_after.map(|wait| retry_after(Some(wait))),
        request_id,
    };
    serde_json::to_vec(&document).expect("a problem document can always be serialized")
}

/// The parameters of a path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(path)) => Ok(Self(path)),
            Err(error) => Err(ApiError::invalid(unreadable_path(&error)).into()),
        }
    }
}

fn unreadable_path(rejection: &PathRejection) -> String {
    if let PathRejection::FailedToDeserializePathParams(failed) = rejection
        && let ErrorKind::ParseErrorAtKey { key, value, .. } = failed.kind()
    {
        return format!("{key} in the path must be a whole number, got {}", quoted(value));
    }
    format!("the path cannot be read: {}", excerpt(rejection.body_text()))
}

/// The query parameters of a URL.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(ApiError::invalid(unreadable_query(&error)).into()),
        }
    }
}

fn unreadable_query(rejection: &QueryRejection) -> String {
    let text = rejection.body_text();
    // The rest begins with the name of the parameter.
    let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
    format!("the query after '?' cannot be read: {}", excerpt(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::error::ErrorCode;
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    #[derive(Debug, Deserialize)]
    struct Page {
        #[expect(dead_code, reason = "only its reading is tested")]
        limit: i32,
    }

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

    #[tokio::test]
    async fn p7_the_problem_with_a_query_names_the_parameter() {
        for (query, name) in [("limit=x", "limit: "), ("", "`limit`"), ("limit=1&limit=2", "`limit`")] {
            let (mut parts, ()) =
                http::Request::builder().uri(format!("/?{query}")).body(()).unwrap().into_parts();
            let Err(Problem(error)) = Query::<Page>::from_request_parts(&mut parts, &()).await else {
                panic!("{query} was accepted");
            };
            assert!(error.message.contains(name), "{query}: {error}");
        }
    }

    #[tokio::test]
    async fn a_problem_document_gets_the_id_of_its_request() {
        let error = ApiError::not_found("there is none");
        let mut response = respond(404, &error);
        assert_eq!(identify(&mut response, "r-1"), Some(error));
        let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&document["request_id"], &document["code"]), (&"r-1".into(), &"not_found".into()));
        assert_eq!(identify(&mut "no problem".into_response(), "r-1"), None);
    }
}
