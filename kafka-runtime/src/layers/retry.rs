//! Quick retries inside of a call.

use crate::consumer::{HandlerError, RetryPolicy};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::task::{Context, Poll};
use tower::{Layer, Service, ServiceExt};

/// Retries a call on retryable errors, for failures that last milliseconds. The record stays in flight meanwhile. For longer
/// waits use the consumer's own [retries](crate::ConsumerConfig::retry), which end when the partition is revoked. The attempt
/// number of the request does not change.
#[derive(Clone, Copy, Debug)]
pub struct RetryLayer {
    policy: RetryPolicy,
}

impl RetryLayer {
    /// After the last attempt the call returns the last error.
    pub fn new(policy: RetryPolicy) -> Self {
        Self { policy }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner, policy: self.policy }
    }
}

/// The service of [`RetryLayer`].
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    policy: RetryPolicy,
}

impl<S, R> Service<R> for Retry<S>
where
    S: Service<R, Error = HandlerError, Response: Send, Future: Send> + Clone + Send + 'static,
    R: Clone + Send + 'static,
{
    type Response = S::Response;
    type Error = HandlerError;
    type Future = BoxFuture<'static, Result<S::Response, HandlerError>>;

    // The inner service is polled before each attempt instead, so that a concurrency permit is not held between attempts.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let Self { mut inner, policy } = self.clone();
        async move {
            let mut attempt = 1;
            loop {
                let request = request.clone();
                let result = async { inner.ready().await?.call(request).await }.await;
                match result {
                    Err(error) if error.is_retryable() && !policy.is_exhausted(attempt) => {
                        tokio::time::sleep(policy.backoff.delay(attempt)).await;
                        attempt = attempt.saturating_add(1);
                    }
                    result => return result,
                }
            }
        }
        .boxed()
    }
}
