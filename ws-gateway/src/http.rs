//! The paths of the gateway.

use crate::{
    accounts,
    admission::Admission,
    backend::Backend,
    conversations, groups,
    handshake::{self, Handshake},
    openapi,
    operation::{Documentation, Operation, Tag, operation},
    problem::{Address, Problem, no_such_method, no_such_path},
    serve::Connection,
    socket, users,
};
use abi::{ApiError, error::ErrorCode};
use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{HeaderName, Method, header},
    response::Response,
};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use tokio_util::task::TaskTracker;
use utils::Readiness;

/// State of the paths.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The parts behind HTTP and sockets.
    pub backend: Arc<Backend>,
    /// Each WebSocket holds a token.
    pub sockets: TaskTracker,
    /// Counts WebSockets of clients behind a proxy.
    pub admission: Arc<Admission>,
    /// Whether the program should receive work.
    pub readiness: Readiness,
}

/// All paths for devices and load balancers.
pub fn router(edge: Edge) -> Router {
    let backend = edge.backend.clone();
    let with_state = |router: Router, (path, handler)| router.route(path, handler);
    let server = server_operations()
        .into_iter()
        .map(|it| (it.documentation.path, it.handler.with_state(edge.clone())));
    let others =
        backend_operations().map(|it| (it.documentation.path, it.handler.with_state(backend.clone())));
    server
        .chain(others)
        .fold(Router::new(), with_state)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
}

/// The OpenAPI document of all operations.
pub fn openapi() -> Value {
    let server = server_operations().into_iter().map(|operation| operation.documentation);
    let all: Vec<Documentation> =
        server.chain(backend_operations().map(|operation| operation.documentation)).collect();
    openapi::document(&all)
}

fn backend_operations() -> impl Iterator<Item = Operation<Arc<Backend>>> {
    [accounts::operations(), conversations::operations(), groups::operations(), users::operations()]
        .into_iter()
        .flatten()
}

/// The operations that concern the server and not its data.
fn server_operations() -> Vec<Operation<Edge>> {
    use ErrorCode::{GoingAway, InvalidRequest, RateLimited};
    vec![
        operation(Method::GET, "/v1/ws", "connect", connect)
            .about(Tag::Server, "Open the WebSocket of a device")
            .describe(
                "Subprotocols: `godwit.v1.proto` (protobuf) and `godwit.v1.json`. The token is in the first frame, `hello`. See \
                 `docs/protocol.md`.",
            )
            .public()
            .no_body(101, "The connection is a WebSocket.")
            .errors(&[InvalidRequest, RateLimited, GoingAway]),
        operation(Method::GET, "/health", "health", health)
            .about(Tag::Server, "Whether a load balancer should send devices here")
            .public()
            .object("The server takes new devices."),
        operation(Method::GET, "/openapi.json", "openapi", document)
            .about(Tag::Server, "This document")
            .public()
            .object("The OpenAPI document."),
        operation(Method::GET, "/docs", "docs", docs)
            .about(Tag::Server, "This document as a page for people")
            .public()
            .text("text/html", "The page."),
    ]
}

/// The document and the page, which are the same for each request.
static DOCUMENTS: LazyLock<(Bytes, Bytes)> = LazyLock::new(|| {
    let document = openapi();
    (document.to_string().into(), openapi::page(&document).into())
});

async fn document() -> ([(HeaderName, &'static str); 1], Bytes) {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENTS.0.clone())
}

async fn docs() -> ([(HeaderName, &'static str); 2], Bytes) {
    // The page has its own style, and nothing else.
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, DOCUMENTS.1.clone())
}

/// Names no dependency, because anyone may ask.
async fn health(State(edge): State<Edge>) -> Result<Json<Value>, Problem> {
    match edge.readiness.is_ready() {
        true => Ok(Json(json!({ "status": "ready" }))),
        false => Err(ApiError::unavailable("this server takes no new devices now; use another one").into()),
    }
}

async fn connect(
    State(edge): State<Edge>,
    Address(address): Address,
    connection: Option<Extension<Connection>>,
    request: Request,
) -> Result<Response, Problem> {
    let Handshake { format, response, upgrade } = match handshake::accept(request) {
        Ok(handshake) => handshake,
        Err(refusal) => return Ok(*refusal),
    };
    if connection.as_ref().is_some_and(|connection| connection.is_proxy) {
        edge.admission.connect_through_proxy(address)?;
    }
    if edge.sockets.is_closed() {
        return Err(ApiError::new(ErrorCode::GoingAway, "this server is stopping; connect again").into());
    }
    if edge.sockets.len() >= edge.backend.limits().max_connections {
        return Err(
            ApiError::unavailable("this server has reached its limit of connections; try again").into()
        );
    }
    // Counted before the upgrade completes: the limit must hold for many connections that arrive at once.
    edge.sockets.clone().spawn(async move {
        match upgrade.await {
            Ok(stream) => socket::serve(edge.backend, TokioIo::new(stream), format).await,
            Err(error) => tracing::debug!(%error, "a device left during its handshake"),
        }
        drop(connection);
    });
    Ok(response)
}
