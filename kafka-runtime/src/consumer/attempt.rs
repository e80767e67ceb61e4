//! One call of a handler.

use super::handler::HandlerError;
use crate::record::Delivered;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use tower::{Service, ServiceExt};
use tracing::Instrument;

/// A handler that outlives its panics.
pub(super) struct Handling<S> {
    fresh: S,
    current: S,
}

impl<S: Clone> Handling<S> {
    pub(super) fn new(handler: S) -> Self {
        Self { fresh: handler.clone(), current: handler }
    }

    /// Hands `request` over when the handler is ready for it. A panic is a failure that is worth another attempt.
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
                // It may have left itself in any state.
                self.current = self.fresh.clone();
                Err(HandlerError::panicked(&*panic))
            }
        }
    }
}
