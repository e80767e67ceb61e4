//! The admin server: `/livez`, `/readyz`, `/metrics`, and the routes that a program adds for operators.

use crate::{Error, Readiness, listener::Listener, metrics, problem::Problem, telemetry};
use abi::{ApiError, config::Secret, error::ErrorCode};
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{
        StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE},
    },
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often recorded values move into the histograms' buckets. Until then they take memory, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// Requires the operator's token for `routes`. While no token is configured, every request is refused.
pub fn require_operator(token: Secret, routes: Router) -> Router {
    routes.route_layer(middleware::from_fn_with_state(Arc::new(token), guard))
}

async fn guard(State(token): State<Arc<Secret>>, request: Request, next: Next) -> Result<Response, Problem> {
    if token.is_empty() {
        return Err(ApiError::forbidden(
            "only operators may call this, and no operator token is configured: set operator.token and restart",
        )
        .into());
    }
    let unauthenticated = |sentence| Problem(ApiError::new(ErrorCode::Unauthenticated, sentence));
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = header
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| unauthenticated("send the operator's token as `Authorization: Bearer TOKEN`"))?;
    if !bool::from(given.as_bytes().ct_eq(token.expose().as_bytes())) {
        return Err(unauthenticated("the operator's token is wrong"));
    }
    Ok(next.run(request).await)
}

/// Serves the standard routes and `more` on a bound listener until `stop`.
///
/// Stop it last: during a drain, `/readyz` tells load balancers to send no more requests.
///
/// # Errors
/// The process has another metrics recorder, or the listener fails.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    more: Router,
    stop: CancellationToken,
) -> Result<(), Error> {
    let recorder = telemetry::metrics_recorder()?;
    let address = listener.local_addr().map_err(|source| Error::Bind { address: "admin".into(), source })?;
    let server = axum::serve(Listener::from(listener), router(readiness, recorder.clone()).merge(more));
    let upkeep = async {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            recorder.run_upkeep();
        }
    };
    tokio::select! {
        // This drops the server and cuts off open requests. Prometheus repeats a scrape that fails.
        () = stop.cancelled() => Ok(()),
        never = upkeep => never,
        ended = async { server.await } => ended.map_err(|source| Error::Serve { address, source: source.into() }),
    }
}

fn router(readiness: Readiness, recorder: PrometheusHandle) -> Router {
    let current = readiness.clone();
    let metrics = move || async move {
        metrics::ready(current.is_ready());
        ([(CONTENT_TYPE, "text/plain; version=0.0.4")], recorder.render())
    };
    Router::new()
        .route("/livez", get(|| async { Json(json!({ "live": true })) }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(metrics))
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, Json<Value>) {
    let ready = readiness.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let dependencies: serde_json::Map<_, _> = readiness
        .report()
        .into_iter()
        .map(|(name, reason)| (name, Value::String(reason.unwrap_or_else(|| "ready".to_owned()))))
        .collect();
    let mut report = json!({ "ready": ready, "dependencies": dependencies });
    let warnings = readiness.warnings();
    if !warnings.is_empty() {
        report["warnings"] = json!(warnings);
    }
    (status, Json(report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn get_path(router: &Router, path: &str) -> (StatusCode, String) {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn p9_readyz_lists_missing_dependencies() {
        let readiness = Readiness::new();
        let router = router(readiness.clone(), telemetry::metrics_recorder().unwrap());
        assert_eq!(get_path(&router, "/livez").await.0, StatusCode::OK);
        let kafka = readiness.latch("kafka");
        readiness.latch("redis").ready();
        let (status, body) = get_path(&router, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["dependencies"]["redis"], "ready");
        assert_ne!(body["dependencies"]["kafka"], "ready");
        kafka.ready();
        assert_eq!(
            get_path(&router, "/readyz").await,
            (StatusCode::OK, r#"{"dependencies":{"kafka":"ready","redis":"ready"},"ready":true}"#.to_owned())
        );
        readiness.warn("redis", Some("it is slow".into()));
        let (status, body) = get_path(&router, "/readyz").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["warnings"]["redis"], "it is slow");
    }

    #[tokio::test]
    async fn p8_operator_routes_require_the_operators_token() {
        let secret = || Router::new().route("/secret", get(|| async { "secret" }));
        let request_with = async |token: &str, sent: Option<&str>| {
            let mut request = http::Request::get("/secret");
            if let Some(sent) = sent {
                request = request.header(AUTHORIZATION, sent);
            }
            let router = require_operator(Secret::new(token), secret());
            let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(request_with("right", Some("Bearer right")).await, (200, "secret".to_owned()));
        for sent in [None, Some("Bearer"), Some("Bearer "), Some("Bearer wrong"), Some("Basic right")] {
            let (status, body) = request_with("right", sent).await;
            assert!(status == 401 && body.contains("operator's token"), "{sent:?}: {body}");
        }
        for sent in [None, Some("Bearer "), Some("Bearer right")] {
            let (status, body) = request_with("", sent).await;
            assert!(status == 403 && body.contains("set operator.token"), "{sent:?}: {body}");
        }
    }

    #[tokio::test]
    async fn metrics_are_rendered_and_the_server_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let server = serve(listener, Readiness::new(), Router::new(), stop.clone());
        stop.cancel();
        server.await.unwrap();
        ::metrics::counter!("godwit_utils_admin_test_total").increment(1);
        let router = router(Readiness::new(), telemetry::metrics_recorder().unwrap());
        assert!(get_path(&router, "/metrics").await.1.contains("godwit_utils_admin_test_total"));
    }
}
