//! The paths of the gateway.

use crate::{
    accounts,
    admission::Admission,
    backend::Backend,
    codec::Format,
    groups,
    problem::{Address, Problem, no_such_method, no_such_path},
    serve::Connection,
    socket,
};
use abi::{ApiError, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO};
use axum::{
    Extension, Json, Router,
    extract::{State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::task::TaskTracker;
use utils::{Readiness, problem::respond};

/// Read and write buffers of a socket, in bytes. The defaults of the library are 130 KiB per connection. The write buffer has no
/// maximum, because that would limit the size of a frame, and a page of history is one frame. It stays bounded all the same: no
/// frame is added to a buffer that could not be written.
const READ_BUFFER: usize = 4 << 10;
const WRITE_BUFFER: usize = 16 << 10;

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
    let accounts = Router::new()
        .route("/v1/accounts", post(accounts::register))
        .route("/v1/sessions", post(accounts::log_in))
        .route("/v1/sessions/refresh", post(accounts::refresh))
        .route("/v1/sessions/current", delete(accounts::log_out))
        .route("/v1/groups", post(groups::create))
        .route("/v1/groups/{conversation}/members", get(groups::members).post(groups::add))
        .route("/v1/groups/{conversation}/members/{user}", delete(groups::remove))
        .with_state(edge.backend.clone());
    Router::new()
        .route("/v1/ws", get(connect))
        .route("/health", get(health))
        .with_state(edge)
        .merge(accounts)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
}

/// `GET /health`: whether a load balancer should send devices here. It names no dependency, because anyone may ask.
async fn health(State(edge): State<Edge>) -> Result<Json<Value>, Problem> {
    match edge.readiness.is_ready() {
        true => Ok(Json(json!({ "status": "ready" }))),
        false => Err(ApiError::unavailable("this server takes no new devices now; use another one").into()),
    }
}

/// The response to a request that is no handshake of a WebSocket.
fn no_handshake(rejection: &WebSocketUpgradeRejection) -> Response {
    let text = rejection.body_text();
    let error = ApiError::invalid(format!("this path expects a WebSocket handshake: {text}"));
    let mut response = match rejection {
        WebSocketUpgradeRejection::InvalidWebSocketVersionHeader(_) => respond(426, &error),
        _ => Problem(error).into_response(),
    };
    response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if response.status() == StatusCode::UPGRADE_REQUIRED {
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    response
}

/// `GET /v1/ws`
async fn connect(
    State(edge): State<Edge>,
    Address(address): Address,
    connection: Option<Extension<Connection>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Ok(no_handshake(&rejection)),
    };
    if connection.as_ref().is_some_and(|connection| connection.is_proxy) {
        edge.admission.connect_through_proxy(address)?;
    }
    if edge.sockets.is_closed() {
        return Err(ApiError::new(
            abi::error::ErrorCode::GoingAway,
            "this server is stopping; connect again",
        )
        .into());
    }
    let limits = edge.backend.limits();
    if edge.sockets.len() >= limits.max_connections {
        return Err(
            ApiError::unavailable("this server has reached its limit of connections; try again").into()
        );
    }
    let upgrade = upgrade
        .protocols([SUBPROTOCOL_PROTO, SUBPROTOCOL_JSON])
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_frame_size(limits.max_frame)
        .max_message_size(limits.max_frame);
    let selected = upgrade.selected_protocol().and_then(|name| name.to_str().ok());
    let requested = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let format = Format::of_subprotocol(selected, requested).ok_or_else(|| {
        ApiError::invalid(format!("request the subprotocol {SUBPROTOCOL_PROTO} or {SUBPROTOCOL_JSON}"))
    })?;
    // Counted before the upgrade completes: the limit must hold for many connections that arrive at once.
    let token = edge.sockets.token();
    Ok(upgrade.on_upgrade(move |socket| async move {
        socket::serve(edge.backend, socket, format).await;
        drop((token, connection));
    }))
}
