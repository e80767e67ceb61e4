//! Why a batch has to be tried again.

use abi::ApiError;

/// What failed. All of it is worth another try: a record that can never be handled is no error but rejected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not take the entries.
    #[error("the store did not save the batch: {0}")]
    Save(#[source] ApiError),
    /// The store did not say who is in a group.
    #[error("the store did not give the members of {conversation}: {fault}")]
    Members {
        /// Conversation id.
        conversation: String,
        /// What it said.
        fault: ApiError,
    },
    /// The store did not say that all is durable.
    #[error("the store did not sync: {0}")]
    Sync(#[source] ApiError),
    /// The store's answer does not fit the question.
    #[error("the store's answer does not fit: {0}")]
    Answer(&'static str),
    /// Counters or members can't be had.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}
