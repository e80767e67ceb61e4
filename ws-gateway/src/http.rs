//! The paths of the gateway.

use crate::{
    accounts,
    backend::Backend,
    groups,
    handshake::{self, Handshake},
    problem::{Address, Problem, no_such_method, no_such_path},
    socket,
};
use abi::ApiError;
use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::{any, delete, get, patch, post, put},
};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

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
        .route("/v1/groups/{conversation}", patch(groups::rename).delete(groups::dissolve))
        .route("/v1/groups/{conversation}/owner", put(groups::hand_over))
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
    request: Request,
) -> Result<Response, Problem> {
    edge.backend.rate_limits().connect(address)?;
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
    let Handshake { format, response, upgrade } = match handshake::accept(request) {
        Ok(handshake) => handshake,
        Err(refusal) => return Ok(*refusal),
    };
    // Counted before the upgrade completes: the limit must hold for many connections that arrive at once.
    edge.sockets.clone().spawn(async move {
        match upgrade.await {
            Ok(stream) => socket::serve(edge.backend, TokioIo::new(stream), format).await,
            Err(error) => tracing::debug!(%error, "a device left during its handshake"),
        }
    });
    Ok(response)
}
