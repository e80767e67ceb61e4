//! Why a batch must be retried.

use abi::ApiError;

/// A failure that a retry may resolve, if need be from an earlier offset. A record that can never be handled is not an error: it is rejected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not save the entries.
    #[error("the store did not save the batch: {0}")]
    Save(#[source] ApiError),
    /// The store has lost entries that it had saved. They must be read again.
    #[error("the store has lost entries: {0}")]
    StoreIsBehind(#[source] ApiError),
    /// The store did not return the members of a group.
    #[error("the store did not return the members of {conversation}: {error}")]
    Members {
        /// Conversation id.
        conversation: String,
        /// The store's error.
        error: ApiError,
    },
    /// The store did not make the saved entries durable.
    #[error("the store did not sync: {0}")]
    Sync(#[source] ApiError),
    /// The store did not choose a start offset.
    #[error("the store did not say where to begin: {0}")]
    StartOffset(#[source] ApiError),
    /// The store's response does not match the request.
    #[error("the store sent an unexpected response: {0}")]
    UnexpectedResponse(&'static str),
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}
