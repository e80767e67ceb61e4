//! Access to all records of a topic without a consumer group, for tools: read from any offset, remove from the beginning.

use crate::error::Error;
use crate::record::Record;
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;

/// Bytes after which one call of [`Archive::read`] returns no further record.
pub(crate) const READ_BYTES: usize = 4 << 20;

/// All records of a topic.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// The topic.
    fn topic(&self) -> &Arc<str>;

    /// The offsets of each partition, by its number: from the first one that the log still has to the next one to be written.
    async fn bounds(&self) -> Result<Vec<Range<i64>>, Error>;

    /// Up to `limit` records or about 4 MiB of a partition, starting at an offset. Removed records are skipped. An empty result
    /// means that the end was reached.
    async fn read(&self, partition: i32, from: i64, limit: usize) -> Result<Vec<Record>, Error>;

    /// Removes the records of a partition before an offset. The log may keep some of them longer.
    async fn remove_before(&self, partition: i32, offset: i64) -> Result<(), Error>;
}
