//! Counts calls and measures their duration.

use crate::consumer::HandlerError;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{Counter, Histogram, counter, histogram};
use std::task::{Context, Poll};
use std::time::Instant;
use tower::{Layer, Service};

/// Counts calls by outcome and measures their duration, see [`describe_metrics`](crate::describe_metrics).
#[derive(Clone)]
pub struct MetricsLayer {
    meters: Meters,
}

#[derive(Clone)]
struct Meters {
    ok: Counter,
    retry: Counter,
    reject: Counter,
    seconds: Histogram,
}

impl MetricsLayer {
    /// `handler` is the value of the label `handler`.
    pub fn new(handler: &str) -> Self {
        let handled = |outcome: &'static str| counter!("godwit_kafka_runtime_handled_total", "handler" => handler.to_owned(), "outcome" => outcome);
        let (ok, retry, reject) = (handled("ok"), handled("retry"), handled("reject"));
        let seconds = histogram!("godwit_kafka_runtime_handler_seconds", "handler" => handler.to_owned());
        Self { meters: Meters { ok, retry, reject, seconds } }
    }
}

impl std::fmt::Debug for MetricsLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsLayer").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;

    fn layer(&self, inner: S) -> Metrics<S> {
        Metrics { inner, meters: self.meters.clone() }
    }
}

/// The service of [`MetricsLayer`].
#[derive(Clone)]
pub struct Metrics<S> {
    inner: S,
    meters: Meters,
}

impl<S: std::fmt::Debug> std::fmt::Debug for Metrics<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, R> Service<R> for Metrics<S>
where
    S: Service<R, Error = HandlerError, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = HandlerError;
    type Future = BoxFuture<'static, Result<S::Response, HandlerError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (began, meters) = (Instant::now(), self.meters.clone());
        let call = self.inner.call(request);
        call.inspect(move |result| {
            meters.seconds.record(began.elapsed());
            match result {
                Ok(_) => meters.ok.increment(1),
                Err(error) if error.is_retryable() => meters.retry.increment(1),
                Err(_) => meters.reject.increment(1),
            }
        })
        .boxed()
    }
}
