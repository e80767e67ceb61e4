//! The hooks of the consumer: the choice of the start offsets, and the sync before a commit of offsets.

use crate::{Error, handler::with_timeout};
use abi::{
    ApiError, Caller, Channel,
    v1::{FindStartOffsetRequest, SyncRequest, db_service_client::DbServiceClient},
};
use futures_util::{FutureExt as _, future::BoxFuture};
use kafka_runtime::PartitionStart;
use std::time::Duration;

/// Shorter than the timeouts of the hooks.
const TIMEOUT: Duration = Duration::from_secs(4);

/// The hook to run before offsets are committed. It makes all saved entries durable.
pub fn before_commit(
    db: Channel,
) -> impl Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static {
    let db = DbServiceClient::new(Caller::new(db));
    move || {
        let mut db = db.clone();
        async move {
            let synced = db.sync(with_timeout(SyncRequest {}, TIMEOUT)).await;
            synced.map(drop).map_err(|status| Error::Sync(ApiError::of_call(&status)))
        }
        .boxed()
    }
}

/// The hook that chooses the start offsets: the position of the store, if it is smaller than the committed offset. So a store that was
/// restored from a backup, or has lost transactions, gets the entries that it lacks.
pub fn start_offsets(
    db: Channel,
) -> impl Fn(PartitionStart) -> BoxFuture<'static, Result<Option<i64>, Error>> + Send + Sync + 'static {
    let db = DbServiceClient::new(Caller::new(db));
    move |start| {
        let mut db = db.clone();
        let PartitionStart { partition, committed, first, end } = start;
        #[cfg(feature = "defects")]
        let is_defective = crate::handler::defects::commits_before_save();
        // As if the log were new: the store then forgets its position, and saves from any offset on.
        #[cfg(feature = "defects")]
        let committed = committed.filter(|_| !is_defective);
        let request = FindStartOffsetRequest {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            committed_offset: committed,
            first_offset: first,
            end_offset: end,
        };
        async move {
            match db.find_start_offset(with_timeout(request, TIMEOUT)).await {
                Ok(found) => Ok(found.into_inner().offset),
                Err(status) => Err(Error::StartOffset(ApiError::of_call(&status))),
            }
        }
        .boxed()
    }
}
