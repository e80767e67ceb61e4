//! What handles records, and what it may answer.

use crate::BoxError;
use crate::panic::words;
use crate::record::{Batch, Message, ProducerRecord};
use std::any::Any;
use std::fmt::Write as _;
use tower::Service;

/// A record of a batch that can't be handled, however often it is tried.
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

/// A record or a batch was not handled, or not wholly. Whether that is worth [another attempt](Self::retry) decides what
/// happens to it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HandlerError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error(transparent)]
    Retry(BoxError),
    #[error(transparent)]
    Reject(BoxError),
}

impl HandlerError {
    /// Trying again can help: something that the handler needs is away. All of it is handed over again after a wait, as often
    /// as the [`RetryPolicy`](super::RetryPolicy) says.
    pub fn retry(cause: impl Into<BoxError>) -> Self {
        Self(Kind::Retry(cause.into()))
    }

    /// It will never be handled. A record goes to the dead letters with this reason (no secrets). Of a batch each
    /// record is handed over once more, alone, so that only the bad ones go; to name them, answer
    /// [`Outcome::rejected`] instead.
    pub fn reject(reason: impl Into<BoxError>) -> Self {
        Self(Kind::Reject(reason.into()))
    }

    /// Of a handler that panicked. It is worth another attempt.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::retry(format!("the handler panicked: {}", words(panic)))
    }

    /// Whether it was made by [`retry`](Self::retry).
    pub fn is_retryable(&self) -> bool {
        matches!(self.0, Kind::Retry(_))
    }

    /// The error and what caused it, in one line.
    pub(super) fn reason(&self) -> String {
        let mut reason = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            // Writing to a string does not fail.
            let _ = write!(reason, ": {error}");
            cause = error.source();
        }
        reason
    }
}

/// Worth another attempt, unless it is a [`HandlerError`] that went through a layer which boxes errors.
impl From<BoxError> for HandlerError {
    fn from(cause: BoxError) -> Self {
        cause.downcast::<Self>().map_or_else(Self::retry, |error| *error)
    }
}

/// A tower service that handles batches. It may see a record more than once.
pub trait BatchHandler:
    Service<Batch, Response = Outcome, Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> BatchHandler for S where
    S: Service<Batch, Response = Outcome, Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}

/// A tower service that handles one record at a time; `Ok` acknowledges it. It may see a record more than once.
pub trait RecordHandler:
    Service<Message, Response = (), Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> RecordHandler for S where
    S: Service<Message, Response = (), Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}

/// A tower service that makes records out of batches. It may see a record more than once; what it answered is written once.
pub trait TransformHandler:
    Service<Batch, Response = Vec<ProducerRecord>, Error = HandlerError, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> TransformHandler for S where
    S: Service<Batch, Response = Vec<ProducerRecord>, Error = HandlerError, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_stays_one_when_a_layer_boxes_it() {
        let boxed: BoxError = HandlerError::reject("no such user").into();
        assert!(!HandlerError::from(boxed).is_retryable());
        let other: BoxError = "the store is away".into();
        assert!(HandlerError::from(other).is_retryable());
    }

    #[test]
    fn the_reason_names_the_cause() {
        let cause = crate::Error::Hook("the disk is full".into());
        let error = HandlerError::retry(cause);
        assert_eq!(error.reason(), "the hook before the commit failed: the disk is full");
    }
}
