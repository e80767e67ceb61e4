//! The paths of the edge.

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

/// Read and write buffers of a socket, in bytes. The library's own defaults take 130 KiB per connection. The write buffer has
/// no upper bound of its own, which would be one on frames: a page of history is one frame, and nothing is added to a buffer
/// that could not be written.
const READ_BUFFER: usize = 4 << 10;
const WRITE_BUFFER: usize = 16 << 10;

/// What the paths share.
#[derive(Clone, Debug)]
struct Edge {
    backend: Arc<Backend>,
    sockets: TaskTracker,
    max_connections: usize,
}

impl axum::extract::FromRef<Edge> for Arc<Backend> {
    fn from_ref(edge: &Edge) -> Self {
        edge.backend.clone()
    }
}

/// Everything under `/v1`. Sockets are tasks of `sockets`, of which there may be `max_connections`.
pub fn router(backend: Arc<Backend>, sockets: TaskTracker, max_connections: usize) -> Router {
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
        .with_state(Edge { backend, sockets, max_connections })
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
        ApiError::invalid(format!("this path takes a WebSocket handshake: {}", error.body_text()))
    })?;
    edge.backend.may_connect(address)?;
    if edge.sockets.is_closed() {
        return Err(ApiError::new(
            abi::error::ErrorCode::GoingAway,
            "this server is going away; connect again",
        )
        .into());
    }
    if edge.sockets.len() >= edge.max_connections {
        return Err(
            ApiError::unavailable("this server has all the connections that it takes; try again").into()
        );
    }
    let upgrade = upgrade
        .protocols([SUBPROTOCOL_PROTO, SUBPROTOCOL_JSON])
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_frame_size(edge.backend.max_frame)
        .max_message_size(edge.backend.max_frame);
    let selected = upgrade.selected_protocol().and_then(|name| name.to_str().ok());
    let asked = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let format = Format::of_subprotocol(selected, asked).ok_or_else(|| {
        ApiError::invalid(format!("ask for the subprotocol {SUBPROTOCOL_PROTO} or {SUBPROTOCOL_JSON}"))
    })?;
    // Counted from now on, not from when the socket is up: the bound must hold for a crowd that comes at once.
    let place = edge.sockets.token();
    Ok(upgrade.on_upgrade(move |socket| async move {
        socket::serve(edge.backend, socket, format).await;
        drop(place);
    }))
}
