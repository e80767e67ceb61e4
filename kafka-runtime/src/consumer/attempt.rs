//! One call of a handler.

use super::handler::HandlerError;
use crate::record::Delivered;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use tower::{Service, ServiceExt};
use tracing::Instrument;

/// A handler whose panics become errors.
pub(super) struct PanicSafeHandler<S> {
    pristine: S,
    current: S,
}

impl<S: Clone> PanicSafeHandler<S> {
    pub(super) fn new(handler: S) -> Self {
        Self { pristine: handler.clone(), current: handler }
    }

    /// Calls the handler once it is ready. A panic is a retryable error.
    pub(super) async fn call<R>(&mut self, request: R) -> Result<S::Response, HandlerError>
    where
        R: Delivered,
        S: Service<R, Error = HandlerError>,
    {
        let span = tracing::debug_span!(
            "batch",
            first_offset = request.first_offset(),
            records = request.count(),
            attempt = request.attempt()
        );
        let handler = &mut self.current;
        let call = async { handler.ready().await?.call(request).await };
        match AssertUnwindSafe(call).catch_unwind().instrument(span).await {
            Ok(result) => result,
            Err(panic) => {
                // The panic may have left the handler in an invalid state.
                self.current = self.pristine.clone();
                Err(HandlerError::panicked(&*panic))
            }
        }
    }
}
