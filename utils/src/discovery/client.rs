//! As much of Consul's HTTP API as we need.

use crate::{
    Error,
    tls::{nobody, trust},
};
use abi::config::Secret;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::HeaderName};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use std::time::Duration;
use tower::BoxError;

/// Answers are lists of instances: a few hundred bytes each.
const MAX_ANSWER: usize = 4 << 20;
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");

/// Talks to one agent. A clone shares its connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    agent: String,
    token: Option<HeaderValue>,
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// An answer, and the index of the state that it shows, for blocking queries.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) index: u64,
    pub(super) body: Bytes,
}

impl Client {
    /// `ca` is the file of the authorities that an `https://` agent is checked against; empty for those of the system.
    pub(super) fn new(agent: &str, ca: &str, token: &Secret) -> Result<Self, Error> {
        let wrong = || Error::Address { address: agent.to_owned() };
        let agent = agent.trim_end_matches('/');
        let (scheme, address) = agent.split_once("://").ok_or_else(wrong)?;
        super::check_address(address).map_err(|_| wrong())?;
        let token = match token.expose() {
            "" => None,
            text => {
                let mut value = HeaderValue::from_str(text).map_err(|_| Error::Token)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        connector.enforce_http(false);
        let trusted = match scheme {
            "https" => trust("discovery.consul_ca", ca)?,
            "http" => nobody(),
            _ => return Err(wrong()),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(trusted)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = HttpClient::builder(TokioExecutor::new()).build(connector);
        Ok(Self { agent: agent.to_owned(), token, http })
    }

    pub(super) async fn get(&self, path: &str, timeout: Duration) -> Result<Answer, Error> {
        self.ask(Method::GET, path, Bytes::new(), timeout).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value, timeout: Duration) -> Result<Answer, Error> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        self.ask(Method::PUT, path, body, timeout).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes, timeout: Duration) -> Result<Answer, Error> {
        let failed = |source: BoxError| Error::Consul {
            agent: self.agent.clone(),
            // Without the query, which changes from call to call.
            path: path.split('?').next().unwrap_or(path).to_owned(),
            source,
        };
        let answer = async {
            let response = self.http.request(self.request(method, path, body)?).await?;
            read(response).await
        };
        let (status, answer) = match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => answer.map_err(failed)?,
            Err(_) => return Err(failed(format!("no answer within {timeout:?}").into())),
        };
        if status.is_success() {
            return Ok(answer);
        }
        Err(Error::ConsulRefused {
            agent: self.agent.clone(),
            path: path.split('?').next().unwrap_or(path).to_owned(),
            status: status.as_u16(),
            body: String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned(),
        })
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.agent)).body(Full::new(body))?;
        if let Some(token) = &self.token {
            request.headers_mut().insert(TOKEN, token.clone());
        }
        Ok(request)
    }
}

async fn read(response: Response<hyper::body::Incoming>) -> Result<(StatusCode, Answer), BoxError> {
    let status = response.status();
    let index =
        response.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok()).unwrap_or(0);
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
    Ok((status, Answer { index, body }))
}
