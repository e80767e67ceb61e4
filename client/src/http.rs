//! The HTTP API: accounts, sessions and groups; and for programs that don't stay connected, conversations and users.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! use abi::v1::GetHistory;
//! use client::{Server, http::Api, new_client_msg_id, text};
//!
//! let api = Api::new(Server::parse("http://127.0.0.1:7450")?);
//! let token = api.login("shop", "correct horse", "backend").await?.access_token;
//! api.send_entry(&token, "d:alice:shop", text("Your order has been shipped."), &new_client_msg_id()).await?;
//! let newest = GetHistory { conversation: "d:alice:shop".into(), newest: true, ..GetHistory::default() };
//! assert!(!api.history(&token, newest).await?.entries.is_empty());
//! # Ok(())
//! # }
//! ```

mod conversations;
mod groups;
mod target;
mod users;

pub use groups::Group;

use crate::{Error, Server, Trust, trust};
use abi::{ApiError, error::ErrorCode};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{sync::Arc, time::Duration};
use target::Target;

/// Largest response body, in bytes. A page of 500 large entries in JSON is below it.
const MAX_RESPONSE: usize = 32 << 20;
/// Deadline of a request, including its response.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The result of a log-in.
#[derive(Clone, Serialize, Deserialize)]
pub struct Tokens {
    /// The application.
    pub app: String,
    /// User id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// Session id.
    pub session: String,
    /// Authenticates the device until it expires.
    pub access_token: String,
    /// Lifetime of the access token.
    pub expires_in_seconds: u64,
    /// Gets the next tokens; usable once.
    pub refresh_token: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("user", &self.user)
            .field("device", &self.device)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// A problem document (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

/// A client of the HTTP API. Cheap to clone; keeps connections open.
#[derive(Clone, Debug)]
pub struct Api {
    server: Arc<Server>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Api {
    /// A client of the server at this address. It connects with the first request.
    pub fn new(server: Server) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        connector.enforce_http(false);
        // Without TLS no authority is needed, and reading the system's is slow.
        let tls = server.tls().map_or_else(|| Trust::none().config(), |(_, config)| config);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { server: Arc::new(server), client }
    }

    /// The address of the server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Creates an account and logs its first device in.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`, `INVALID_REQUEST`, `RATE_LIMITED`, and network errors.
    pub async fn register(&self, user: &str, password: &str, device: &str) -> Result<Tokens, Error> {
        let body = serde_json::json!({ "user": user, "password": password, "device": device });
        self.call(Method::POST, "/v1/accounts", None, Some(body)).await
    }

    /// Logs a device in.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a wrong password, and as [`Api::register`].
    pub async fn login(&self, user: &str, password: &str, device: &str) -> Result<Tokens, Error> {
        let body = serde_json::json!({ "user": user, "password": password, "device": device });
        self.call(Method::POST, "/v1/sessions", None, Some(body)).await
    }

    /// Exchanges a refresh token for new tokens. A refresh token works once.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if the session has ended.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens, Error> {
        let body = serde_json::json!({ "refresh_token": refresh_token });
        self.call(Method::POST, "/v1/sessions/refresh", None, Some(body)).await
    }

    /// Ends the session of an access token.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `TOKEN_EXPIRED`.
    pub async fn logout(&self, access_token: &str) -> Result<(), Error> {
        self.send(Method::DELETE, "/v1/sessions/current", Some(access_token), None).await?;
        Ok(())
    }

    /// Reads a message of the contract.
    async fn read<T: DeserializeOwned>(&self, target: &Target, token: &str) -> Result<T, Error> {
        self.call(Method::GET, target.as_str(), Some(token), None).await
    }

    /// Sends a message of the contract and parses the response.
    async fn message<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &Target,
        token: &str,
        message: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(method, target.as_str(), Some(token), Some(json(message)?)).await
    }

    /// Sends a request whose response has no body.
    async fn done<T: Serialize>(
        &self,
        method: Method,
        target: &Target,
        token: &str,
        message: Option<&T>,
    ) -> Result<(), Error> {
        let body = message.map(json).transpose()?;
        self.send(method, target.as_str(), Some(token), body).await.map(drop)
    }

    /// Sends a request and parses the JSON response.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<serde_json::Value>,
    ) -> Result<T, Error> {
        let response = self.send(method, path, token, body).await?;
        serde_json::from_slice(&response).map_err(|error| Error::Protocol(format!("{path}: {error}")))
    }

    /// Sends any request to the API; returns the body of a successful response.
    ///
    /// # Errors
    /// The error in the response, and network errors.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<serde_json::Value>,
    ) -> Result<Bytes, Error> {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server.url()))
            .header(header::ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|_| {
            ApiError::invalid(format!(
                "{path} is not a valid path: ids consist of letters, digits, '.', '_', '-'"
            ))
        })?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| self.failed(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_RESPONSE)
                .collect()
                .await
                .map_err(|error| Error::Lost(error.to_string()))?
                .to_bytes();
            Ok::<_, Error>((parts.status, parts.headers, body))
        };
        let (status, headers, body) = tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| Error::Timeout { what: "a request" })??;
        if status.is_success() {
            return Ok(body);
        }
        let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Err(problem(status, retry_after, &body).into())
    }

    fn failed(&self, error: &hyper_util::client::legacy::Error) -> Error {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<std::io::Error>() {
                let (host, port) = self.server.host_port();
                let io = trust::explain(io).unwrap_or_else(|| std::io::Error::new(io.kind(), io.to_string()));
                return Error::Connect { address: format!("{host}:{port}"), source: Arc::new(io) };
            }
            source = inner.source();
        }
        Error::Lost(error.to_string())
    }
}

fn json(message: &impl Serialize) -> Result<serde_json::Value, Error> {
    serde_json::to_value(message)
        .map_err(|error| ApiError::invalid(format!("the request has no form in JSON: {error}")).into())
}

/// The error in an HTTP response: its problem document, or an error derived from the status.
pub(crate) fn problem(status: StatusCode, retry_after_seconds: Option<&str>, body: &[u8]) -> ApiError {
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let code_in_body = problem.as_ref().and_then(|problem| code_by_name(&problem.code));
    let code = code_in_body.unwrap_or(match status.as_u16() {
        401 => ErrorCode::Unauthenticated,
        403 => ErrorCode::Forbidden,
        404 => ErrorCode::NotFound,
        409 => ErrorCode::Conflict,
        413 => ErrorCode::TooLarge,
        429 => ErrorCode::RateLimited,
        502..=504 => ErrorCode::Unavailable,
        400..=499 => ErrorCode::InvalidRequest,
        _ => ErrorCode::Internal,
    });
    let message = match &problem {
        Some(problem) if !problem.detail.is_empty() => problem.detail.clone(),
        Some(problem) if !problem.title.is_empty() => problem.title.clone(),
        _ => format!("the server answered {status}"),
    };
    let in_header = || retry_after_seconds?.parse().ok().map(Duration::from_secs);
    let retry_after = problem
        .and_then(|problem| problem.retry_after_ms)
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
        .or_else(in_header);
    ApiError { code, message, retry_after }
}

/// An error code by its name, `rate_limited` or `ERROR_CODE_RATE_LIMITED`.
pub(crate) fn code_by_name(name: &str) -> Option<ErrorCode> {
    let upper = name.to_ascii_uppercase();
    ErrorCode::from_str_name(&upper)
        .or_else(|| ErrorCode::from_str_name(&format!("ERROR_CODE_{upper}")))
        .filter(|code| *code != ErrorCode::Unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_document_becomes_an_api_error() {
        let body = br#"{"type":"about:blank","title":"Too many requests","status":429,
            "detail":"wait a moment","code":"rate_limited","retry_after_ms":250}"#;
        let error = problem(StatusCode::TOO_MANY_REQUESTS, Some("1"), body);
        assert_eq!(error, ApiError::rate_limited("wait a moment", Duration::from_millis(250)));
        assert_eq!(code_by_name("ALREADY_EXISTS"), Some(ErrorCode::AlreadyExists));
        assert_eq!(code_by_name("ERROR_CODE_NOT_FOUND"), Some(ErrorCode::NotFound));
        assert_eq!(code_by_name("nonsense"), None);
    }

    #[test]
    fn a_response_without_a_problem_document_is_classified_by_its_status() {
        let error = problem(StatusCode::BAD_GATEWAY, Some("3"), b"<html>");
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert_eq!(error.retry_after, Some(Duration::from_secs(3)));
        assert_eq!(problem(StatusCode::NOT_FOUND, None, b"").code, ErrorCode::NotFound);
    }
}
