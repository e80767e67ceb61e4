//! Panics as errors.

use crate::consumer::HandlerError;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// Turns a panic of the inner service into a retryable error, so that outer layers see it. Without this layer the consumer
/// catches the panic itself, outside of all layers.
#[derive(Clone, Copy, Debug, Default)]
pub struct CatchPanicLayer;

impl<S: Clone> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner }
    }
}

/// The service of [`CatchPanicLayer`].
#[derive(Clone, Debug)]
pub struct CatchPanic<S> {
    inner: S,
}

impl<S, R> Service<R> for CatchPanic<S>
where
    S: Service<R, Error = HandlerError, Response: Send + 'static, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = HandlerError;
    type Future = BoxFuture<'static, Result<S::Response, HandlerError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        match catch_unwind(AssertUnwindSafe(|| self.inner.call(request))) {
            Ok(call) => {
                let call = AssertUnwindSafe(call).catch_unwind();
                call.map(|result| result.unwrap_or_else(|panic| Err(HandlerError::panicked(&*panic)))).boxed()
            }
            Err(panic) => ready(Err(HandlerError::panicked(&*panic))).boxed(),
        }
    }
}
