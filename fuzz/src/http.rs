//! HTTP requests to a gateway, from routing to the answer.

use crate::{gateway::Gateway, tokens::VALID};
use axum::{Router, body::Body};
use http::{Request, header};
use serde_json::Value;
use std::{cell::RefCell, net::Ipv4Addr};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;
use ws_gateway::problem::ClientAddress;

struct Edge {
    gateway: Gateway,
    router: Router,
}

thread_local! {
    static EDGE: RefCell<Edge> = RefCell::new({
        let gateway = Gateway::default();
        let router = ws_gateway::http::router(ws_gateway::http::Edge {
            backend: gateway.backend.clone(),
            sockets: TaskTracker::new(),
            admission: ws_gateway::admission::Admission::new(&Default::default(), 10, 1_000),
            readiness: utils::Readiness::new(),
        });
        Edge { gateway, router }
    });
}

/// The input is a line `METHOD PATH`, optionally followed by ` +` (a valid token) or ` TOKEN`, and then the body.
pub fn request(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(line) = std::str::from_utf8(&data[..end]) else { return };
    let body = data.get(end + 1..).unwrap_or_default();
    let mut words = line.splitn(3, ' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
    let mut request = Request::builder().method(method).uri(path);
    if let Some(token) = words.next() {
        let token = if token == "+" { &*VALID } else { token };
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let address = ClientAddress(Ipv4Addr::LOCALHOST.into());
    // The HTTP library refuses malformed requests before the gateway sees them.
    let Ok(request) = request.extension(address).body(Body::from(body.to_vec())) else { return };
    EDGE.with_borrow(|edge| {
        let answered = async {
            let response = edge.router.clone().oneshot(request).await.expect("a router always answers");
            let (parts, body) = response.into_parts();
            (parts, axum::body::to_bytes(body, 1 << 20).await.expect("an answer is shorter than 1 MiB"))
        };
        let (parts, answer) = edge.gateway.runtime.block_on(answered);
        edge.gateway.check_log();
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if parts.status.is_success() {
            let is_page = kind.is_some_and(|kind| kind.starts_with("text/html"));
            assert!(parts.status == 204 || is_page || kind == Some("application/json"), "{kind:?}");
            return;
        }
        assert_eq!(kind, Some("application/problem+json"), "{}", parts.status);
        let problem: Value = serde_json::from_slice(&answer).expect("a problem is JSON");
        assert_eq!(problem["status"], parts.status.as_u16());
        let detail = problem["detail"].as_str().expect("a problem has a sentence");
        crate::check_sentence(detail);
        // The fake services accept every call, so no request may cause a server error.
        assert!(!parts.status.is_server_error(), "{line}: {problem}");
    });
}
