//! What handles batches, and what it may answer.

use crate::BoxError;
use crate::record::Batch;
use tower::Service;

/// A record that can't be handled, however often it is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its index in the batch's records.
    pub index: usize,
    /// Why, for whoever looks at the dead letters. No secrets.
    pub reason: String,
}

/// A batch was handled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records that go to the dead-letter topic. All the others are done.
    pub rejected: Vec<Rejected>,
}

/// A batch was not handled, or not wholly: all of it is handed over again, later, for as long as it takes. What is wrong
/// with one record belongs into [`Outcome::rejected`].
#[derive(Debug, thiserror::Error)]
#[error("the handler failed: {0}")]
pub struct HandlerError(#[source] BoxError);

impl HandlerError {
    /// Wraps the cause.
    pub fn new(cause: impl Into<BoxError>) -> Self {
        Self(cause.into())
    }
}

/// A tower service that handles batches. It may see a batch more than once.
pub trait Handler:
    Service<Batch, Response = Outcome, Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Handler for S where
    S: Service<Batch, Response = Outcome, Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}
