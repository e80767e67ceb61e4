//! How a call gets its connection, its timeout and its retries.

use crate::{
    error::{Error, Result},
    metrics,
};
use std::{future::Future, time::Duration};
use tokio::time::{sleep, timeout};

/// A call that takes longer fails. The database may nevertheless have executed it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most retries of a transaction after conflicts.
pub(super) const MAX_RETRIES: u32 = 20;

/// Runs a call on a connection of its own, with a timeout.
macro_rules! call {
    ($store:expr, $conn:ident => $call:expr) => {
        $crate::postgres::calls::with_timeout(async {
            let mut acquired = $store.acquire().await?;
            let $conn = &mut *acquired;
            let outcome = $call.await;
            acquired.release(&outcome);
            $store.disk.observe(&outcome);
            outcome
        })
        .await
    };
}

/// Runs a call whose future is one transaction, and retries it after conflicts.
macro_rules! transact {
    ($store:expr, $conn:ident => $attempt:expr) => {
        call!($store, $conn => async {
            let mut retries = 0;
            loop {
                match $attempt.await {
                    Err($crate::Error::Postgres(error))
                        if $crate::error::is_conflict(&error) && retries < $crate::postgres::calls::MAX_RETRIES => {
                        retries += 1;
                        $crate::postgres::calls::back_off(retries).await;
                    }
                    outcome => break outcome,
                }
            }
        })
    };
}

/// Ends a call after [`CALL_TIMEOUT`].
pub(super) async fn with_timeout<T>(call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(Error::Timeout { seconds: CALL_TIMEOUT.as_secs() }))
}

/// Waits before a retry. The delay grows with the number of retries and has jitter.
pub(super) async fn back_off(retries: u32) {
    metrics::retried();
    sleep(Duration::from_micros(u64::from(retries) * (500 + u64::from(rand::random::<u8>()) * 20))).await;
}
