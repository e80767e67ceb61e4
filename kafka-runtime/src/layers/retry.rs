//! A few quick attempts in place.

use crate::consumer::{HandlerError, RetryPolicy};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::task::{Context, Poll};
use tower::{Layer, Service, ServiceExt};

/// Tries what is worth it again in place, for failures that last milliseconds. Meanwhile the call counts as in flight:
/// for longer waits the consumer's own [retries](crate::ConsumerConfig::retry) are better, which let go when the
/// partition does. The attempt number of the request stays the same.
#[derive(Clone, Copy, Debug)]
pub struct RetryLayer {
    policy: RetryPolicy,
}

impl RetryLayer {
    /// When the attempts are used up the last error is answered.
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

/// Made by [`RetryLayer`].
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

    // Not the inner service's: it is asked before each attempt, so that a place in a bound is not held between them.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let Self { mut inner, policy } = self.clone();
        async move {
            let mut attempt = 1;
            loop {
                let copy = request.clone();
                let result = async { inner.ready().await?.call(copy).await }.await;
                match result {
                    Err(error) if error.is_retryable() && !policy.is_used_up(attempt) => {
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
