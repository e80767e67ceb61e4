//! Saving a part of the log, and where to begin to read it.

use super::Service;
use crate::{
    metrics,
    position::{Batch, LogState, Start},
};
use abi::{
    ApiError, ids,
    v1::{FindStartOffsetRequest, SaveRequest, SaveResponse},
};
use std::time::Instant;

/// Most entries in one save call.
const MAX_BATCH: usize = 10_000;

impl Service {
    pub(super) async fn save_batch(&self, request: SaveRequest) -> Result<SaveResponse, ApiError> {
        if request.entries.len() > MAX_BATCH {
            return Err(ApiError::invalid(format!("a batch must have at most {MAX_BATCH} entries")));
        }
        let begun = Instant::now();
        if !request.entries.is_empty() {
            ids::check_id("app", &request.app)?;
        }
        let results = self.conversations.save(Batch::new(request)?).await?;
        if !results.is_empty() {
            metrics::saved(&results, begun.elapsed());
        }
        Ok(SaveResponse { results })
    }

    /// The offset to begin at; `None` for the committed one.
    pub(super) async fn start_offset(
        &self,
        request: FindStartOffsetRequest,
    ) -> Result<Option<i64>, ApiError> {
        let log = LogState::new(request)?;
        let position = self.conversations.position(log.partition.clone()).await?;
        let start = log.start(position);
        log.log(start, position);
        match start {
            Start::Committed => Ok(None),
            Start::At(offset) => Ok(Some(offset)),
            Start::AtFirst(offset) => {
                self.conversations.forget_position(log.partition).await?;
                Ok(Some(offset))
            }
            Start::Forget => {
                self.conversations.forget_position(log.partition).await?;
                Ok(None)
            }
        }
    }
}
