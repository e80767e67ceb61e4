//! Handlers of records and their results.

use crate::BoxError;
use crate::panic::message;
use crate::record::{Batch, Message, ProducerRecord};
use std::any::Any;
use std::fmt::Write as _;
use tower::Service;

/// A record of a batch that can never be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its index in the batch's records.
    pub index: usize,
    /// The reason, for the operator who looks at the dead letters. No secrets.
    pub reason: String,
}

/// The result of a handled batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records to write to the dead-letter topic. All others are done.
    pub rejected: Vec<Rejected>,
}

/// The error of a handler. A [retryable](Self::retry) one leads to another attempt, a [rejection](Self::reject) to a dead
/// letter.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HandlerError(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error(transparent)]
    Retry(BoxError),
    #[error(transparent)]
    Reject(BoxError),
    #[error(transparent)]
    Restart(BoxError),
}

impl HandlerError {
    /// A retryable error: something that the handler needs is unavailable. The record or the whole batch is retried as the
    /// [`RetryPolicy`](super::RetryPolicy) says.
    pub fn retry(cause: impl Into<BoxError>) -> Self {
        Self(Kind::Retry(cause.into()))
    }

    /// A permanent error. A record is dead-lettered with this reason (no secrets). Each record of a batch gets one more attempt
    /// alone, so that only the bad ones are dead-lettered. If the handler knows the bad ones, it should return them as
    /// [`Outcome::rejected`] instead.
    pub fn reject(reason: impl Into<BoxError>) -> Self {
        Self(Kind::Reject(reason.into()))
    }

    /// The handler needs records again that are done, for example because its database has lost transactions. The consumer ends with
    /// [`Error::Restart`](crate::Error::Restart); when it runs again, [`start_offsets`](super::Consumer::start_offsets) can choose to
    /// begin at those records.
    pub fn restart(cause: impl Into<BoxError>) -> Self {
        Self(Kind::Restart(cause.into()))
    }

    /// The retryable error of a handler that panicked.
    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        Self::retry(format!("the handler panicked: {}", message(panic)))
    }

    /// Whether another attempt may succeed.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0, Kind::Retry(_))
    }

    /// Whether the consumer has to end.
    pub(super) fn is_restart(&self) -> bool {
        matches!(self.0, Kind::Restart(_))
    }

    /// The error and its causes in one line.
    pub(super) fn reason(&self) -> String {
        let mut reason = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(reason, ": {error}").expect("writing to a string never fails");
            cause = error.source();
        }
        reason
    }
}

/// Retryable, unless it is a rejection that a layer has boxed.
impl From<BoxError> for HandlerError {
    fn from(cause: BoxError) -> Self {
        cause.downcast::<Self>().map_or_else(Self::retry, |error| *error)
    }
}

/// A tower service that handles batches. It may get a record more than once (at least once).
pub trait BatchHandler:
    Service<Batch, Response = Outcome, Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> BatchHandler for S where
    S: Service<Batch, Response = Outcome, Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}

/// A tower service that handles one record at a time; `Ok` acknowledges it. It may get a record more than once (at least once).
pub trait RecordHandler:
    Service<Message, Response = (), Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> RecordHandler for S where
    S: Service<Message, Response = (), Error = HandlerError, Future: Send> + Clone + Send + Sync + 'static
{
}

/// A tower service that turns batches into output records. It may get a record more than once, but the outputs of only one
/// attempt are committed.
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
    fn a_boxed_rejection_stays_a_rejection() {
        let boxed: BoxError = HandlerError::reject("no such user").into();
        assert!(!HandlerError::from(boxed).is_retryable());
        let other: BoxError = "the store is down".into();
        assert!(HandlerError::from(other).is_retryable());
    }

    #[test]
    fn the_reason_includes_the_causes() {
        let cause = crate::Error::Hook("the disk is full".into());
        let error = HandlerError::retry(cause);
        assert_eq!(error.reason(), "the hook before the commit failed: the disk is full");
    }
}
