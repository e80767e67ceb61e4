//! Whether entries that are about to be saved may be stored already.

use crate::error::{Error, Result, is_conflict};
use abi::v1::{SaveOutcome, SaveResult};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// After a duplicate, more of them are expected for this time: senders repeat what an outage kept from being acknowledged.
const EXPECTED_FOR: Duration = Duration::from_secs(10);

/// The last duplicate that a store met.
#[derive(Default)]
pub(super) struct Duplicates(Mutex<Option<Instant>>);

impl Duplicates {
    /// Whether a save should look for duplicates, instead of failing at the first one.
    pub(super) fn are_expected(&self) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < EXPECTED_FOR)
    }

    /// Learns from the outcome of a save.
    pub(super) fn observe(&self, saved: &Result<Vec<SaveResult>>) {
        let met_one = match saved {
            Ok(results) => results.iter().any(|result| result.outcome() == SaveOutcome::Duplicate),
            Err(Error::Postgres(error)) => is_conflict(error),
            Err(_) => false,
        };
        if met_one {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn more_duplicates_are_expected_for_a_while_after_one() {
        let duplicates = Duplicates::default();
        let saved =
            |outcome: SaveOutcome| Ok(vec![SaveResult { outcome: outcome.into(), ..SaveResult::default() }]);
        duplicates.observe(&saved(SaveOutcome::Stored));
        duplicates.observe(&Err(Error::Busy));
        assert!(!duplicates.are_expected());
        duplicates.observe(&saved(SaveOutcome::Duplicate));
        assert!(duplicates.are_expected());
        tokio::time::advance(EXPECTED_FOR).await;
        assert!(!duplicates.are_expected());
    }
}
