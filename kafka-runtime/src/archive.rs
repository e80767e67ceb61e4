//! A topic as a whole, for tools: read from any place without a group, and cut off at its beginning.

use crate::error::Error;
use crate::record::Record;
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;

/// One call of [`Archive::read`] gives no more once its records have so many bytes.
pub(crate) const READ_BYTES: usize = 4 << 20;

/// All that a topic holds.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// The topic.
    fn topic(&self) -> &Arc<str>;

    /// What each partition holds, by its number: from the first offset that is kept to the next one to be written.
    async fn bounds(&self) -> Result<Vec<Range<i64>>, Error>;

    /// Up to `limit` records of a partition from an offset on, and none after those that make 4 MiB together. Nothing means that
    /// the end was reached; what was removed is passed over.
    async fn read(&self, partition: i32, from: i64, limit: usize) -> Result<Vec<Record>, Error>;

    /// Removes the records of a partition before an offset. The log may keep some of them longer.
    async fn remove_before(&self, partition: i32, offset: i64) -> Result<(), Error>;
}
