//! The paths of the gateway.

use crate::{
    accounts,
    admission::Admission,
    backend::Backend,
    groups,
    handshake::{self, Handshake},
    problem::{Address, Problem, no_such_method, no_such_path},
    serve::Connection,
    socket,
};
use abi::ApiError;
use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    response::Response,
    routing::{delete, get, post},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::Arc;
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

/// `GET /v1/ws`
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
        return Err(ApiError::new(
            abi::error::ErrorCode::GoingAway,
            "this server is stopping; connect again",
        )
        .into());
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
