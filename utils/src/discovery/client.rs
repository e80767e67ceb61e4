//! A minimal client of Consul's HTTP API.

use super::address::check_address;
use crate::{
    Error,
    tls::{trust_authorities, trust_nothing},
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

/// Largest accepted response in bytes. A response is a list of instances with a few hundred bytes each.
const MAX_RESPONSE: usize = 4 << 20;
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const INDEX: HeaderName = HeaderName::from_static("x-consul-index");

/// A client of one agent. Clones share connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    agent: String,
    token: Option<HeaderValue>,
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A response body, with the index of its state for blocking queries.
#[derive(Debug)]
pub(super) struct ConsulResponse {
    pub(super) index: u64,
    pub(super) body: Bytes,
}

impl Client {
    /// `ca` is the file of the trusted authorities for an `https://` agent. If it is empty, the system's are trusted.
    pub(super) fn new(agent: &str, ca: &str, token: &Secret) -> Result<Self, Error> {
        let address_error = || Error::Address { address: agent.to_owned() };
        let agent = agent.trim_end_matches('/');
        let (scheme, address) = agent.split_once("://").ok_or_else(address_error)?;
        check_address(address).map_err(|_| address_error())?;
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
        let tls = match scheme {
            "https" => trust_authorities("discovery.consul_ca", ca)?,
            "http" => trust_nothing(),
            _ => return Err(address_error()),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = HttpClient::builder(TokioExecutor::new()).build(connector);
        Ok(Self { agent: agent.to_owned(), token, http })
    }

    pub(super) async fn get(&self, path: &str, timeout: Duration) -> Result<ConsulResponse, Error> {
        self.send(Method::GET, path, Bytes::new(), timeout).await
    }

    pub(super) async fn put(
        &self,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<ConsulResponse, Error> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        self.send(Method::PUT, path, body, timeout).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<ConsulResponse, Error> {
        let failed = |source: BoxError| Error::Consul {
            agent: self.agent.clone(),
            // Omit the query string, because it differs between calls.
            path: path.split('?').next().unwrap_or(path).to_owned(),
            source,
        };
        let response = async {
            let response = self.http.request(self.request(method, path, body)?).await?;
            read(response).await
        };
        let (status, response) = match tokio::time::timeout(timeout, response).await {
            Ok(response) => response.map_err(failed)?,
            Err(_) => return Err(failed(format!("no response within {timeout:?}").into())),
        };
        if status.is_success() {
            return Ok(response);
        }
        Err(Error::ConsulRefused {
            agent: self.agent.clone(),
            path: path.split('?').next().unwrap_or(path).to_owned(),
            status: status.as_u16(),
            body: String::from_utf8_lossy(&response.body[..response.body.len().min(200)]).into_owned(),
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

async fn read(response: Response<hyper::body::Incoming>) -> Result<(StatusCode, ConsulResponse), BoxError> {
    let status = response.status();
    let index =
        response.headers().get(INDEX).and_then(|index| index.to_str().ok()?.parse().ok()).unwrap_or(0);
    let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await?.to_bytes();
    Ok((status, ConsulResponse { index, body }))
}
