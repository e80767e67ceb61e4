//! A time limit for calls.

use crate::consumer::HandlerError;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{Layer, Service};

/// Drops a call that exceeds the deadline and returns a retryable error. Requests that the call has sent to other systems may
/// still take effect there, so handlers behind a deadline should be idempotent.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    deadline: Duration,
}

impl DeadlineLayer {
    /// Limits each call to `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self { deadline }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, deadline: self.deadline }
    }
}

/// The service of [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    deadline: Duration,
}

impl<S, R> Service<R> for Deadline<S>
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
        let deadline = self.deadline;
        let call = tokio::time::timeout(deadline, self.inner.call(request));
        call.map(move |result| {
            result.unwrap_or_else(|_| {
                Err(HandlerError::retry(format!("the handler took longer than {deadline:?}")))
            })
        })
        .boxed()
    }
}
