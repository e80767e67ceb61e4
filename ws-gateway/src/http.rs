//! The paths of the gateway.

use crate::{
    accounts,
    backend::Backend,
    codec::Format,
    groups,
    problem::{Address, Problem, no_such_method, no_such_path},
    socket,
};
use abi::{ApiError, SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO};
use axum::{
    Router,
    extract::{State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection},
    http::{HeaderMap, header},
    response::Response,
    routing::{any, delete, get, post},
};
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// Read and write buffers of a socket, in bytes. The defaults of the library are 130 KiB per connection. The write buffer has no
/// maximum, because that would limit the size of a frame, and a page of history is one frame. It stays bounded all the same: no
/// frame is added to a buffer that could not be written.
const READ_BUFFER: usize = 4 << 10;
const WRITE_BUFFER: usize = 16 << 10;

/// State of the WebSocket path.
#[derive(Clone, Debug)]
struct Edge {
    backend: Arc<Backend>,
    sockets: TaskTracker,
}

impl axum::extract::FromRef<Edge> for Arc<Backend> {
    fn from_ref(edge: &Edge) -> Self {
        edge.backend.clone()
    }
}

/// All paths under `/v1`. Each WebSocket holds a token of `sockets`.
pub fn router(backend: Arc<Backend>, sockets: TaskTracker) -> Router {
    let accounts = Router::new()
        .route("/v1/accounts", post(accounts::register))
        .route("/v1/sessions", post(accounts::log_in))
        .route("/v1/sessions/refresh", post(accounts::refresh))
        .route("/v1/sessions/current", delete(accounts::log_out))
        .route("/v1/groups", post(groups::create))
        .route("/v1/groups/{conversation}/members", get(groups::members).post(groups::add))
        .route("/v1/groups/{conversation}/members/{user}", delete(groups::remove))
        .with_state(backend.clone());
    Router::new()
        .route("/v1/ws", any(connect))
        .with_state(Edge { backend, sockets })
        .merge(accounts)
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
}

/// `GET /v1/ws`
async fn connect(
    State(edge): State<Edge>,
    Address(address): Address,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|error| {
        ApiError::invalid(format!("this path expects a WebSocket handshake: {}", error.body_text()))
    })?;
    edge.backend.rate_limits().connect(address)?;
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
        drop(token);
    }))
}
