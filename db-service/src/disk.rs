//! Whether the disk of the store accepts writes.

use crate::error::{Error, Result};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a refused write is reported. The consumer retries its saves about every second, so a lasting failure is
/// reported without gaps.
const REPORTED: Duration = Duration::from_secs(10);

/// Remembers the last write that the disk refused.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    refused: Mutex<Option<(Instant, &'static str)>>,
}

impl Disk {
    /// Takes note of the outcome of a call.
    pub(crate) fn observe<T>(&self, outcome: &Result<T>) {
        if let Some(reason) = outcome.as_ref().err().and_then(Error::disk_failure) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), reason));
        }
    }

    /// Why the disk refused a write in the last ten seconds, if it did.
    ///
    /// # Errors
    /// The reason, in words for an operator.
    pub(crate) fn health(&self) -> Result<(), String> {
        match *self.refused.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, reason)) if at.elapsed() < REPORTED => Err(reason.to_owned()),
            _ => Ok(()),
        }
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[tokio::test(start_paused = true)]
    async fn p7_a_full_disk_is_reported_until_ten_seconds_after_the_last_refused_write() {
        let disk = Disk::default();
        let failure =
            |code| Err::<(), _>(Error::Sqlite(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)));
        disk.observe(&Ok(()));
        disk.observe(&failure(ffi::SQLITE_BUSY));
        disk.observe(&Err::<(), _>(Error::Busy));
        assert_eq!(disk.health(), Ok(()));
        disk.observe(&failure(ffi::SQLITE_FULL));
        assert!(disk.health().unwrap_err().contains("full"));
        tokio::time::advance(Duration::from_secs(9)).await;
        disk.observe(&failure(ffi::SQLITE_IOERR));
        disk.observe(&Ok(()));
        tokio::time::advance(Duration::from_secs(9)).await;
        disk.health().unwrap_err();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(disk.health(), Ok(()));
    }
}
