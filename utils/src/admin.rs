//! The server for operators: `/livez`, `/readyz`, `/metrics`.

use crate::{Error, Readiness, telemetry};
use axum::{Json, Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Histograms are folded into their buckets this often, scraped or not: what is recorded waits in memory until then.
const UPKEEP: Duration = Duration::from_secs(5);

/// Serves on a bound listener until `stop`.
///
/// It should be stopped last: while a process drains, `/readyz` is how others see that.
///
/// # Errors
/// When there is another metrics recorder, or the listener fails.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    stop: CancellationToken,
) -> Result<(), Error> {
    let recorder = telemetry::metrics_recorder()?;
    let address = listener.local_addr().map_err(|source| Error::Bind { address: "admin".into(), source })?;
    let server = axum::serve(listener, router(readiness, recorder.clone()));
    let upkeep = async {
        let mut ticks = tokio::time::interval(UPKEEP);
        loop {
            ticks.tick().await;
            recorder.run_upkeep();
        }
    };
    tokio::select! {
        // Dropping the server ends it at once: a scrape that is cut off is asked again.
        () = stop.cancelled() => Ok(()),
        never = upkeep => never,
        ended = async { server.await } => ended.map_err(|source| Error::Serve { address, source: source.into() }),
    }
}

fn router(readiness: Readiness, recorder: PrometheusHandle) -> Router {
    Router::new()
        .route("/livez", get(|| async { Json(json!({ "live": true })) }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route(
            "/metrics",
            get(move || async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], recorder.render()) }),
        )
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, Json<Value>) {
    let ready = readiness.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let dependencies: serde_json::Map<_, _> = readiness
        .report()
        .into_iter()
        .map(|(name, missing)| (name, Value::String(missing.unwrap_or_else(|| "ready".to_owned()))))
        .collect();
    (status, Json(json!({ "ready": ready, "dependencies": dependencies })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn ask(router: &Router, path: &str) -> (StatusCode, String) {
        let request = http::Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn p9_readyz_names_what_is_missing() {
        let readiness = Readiness::new();
        let router = router(readiness.clone(), telemetry::metrics_recorder().unwrap());
        assert_eq!(ask(&router, "/livez").await.0, StatusCode::OK);
        let kafka = readiness.latch("kafka");
        readiness.latch("redis").ready();
        let (status, body) = ask(&router, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["dependencies"]["redis"], "ready");
        assert_ne!(body["dependencies"]["kafka"], "ready");
        kafka.ready();
        assert_eq!(ask(&router, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_are_rendered_and_the_server_stops() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let server = serve(listener, Readiness::new(), stop.clone());
        stop.cancel();
        server.await.unwrap();
        metrics::counter!("godwit_utils_admin_test_total").increment(1);
        let router = router(Readiness::new(), telemetry::metrics_recorder().unwrap());
        assert!(ask(&router, "/metrics").await.1.contains("godwit_utils_admin_test_total"));
    }
}
