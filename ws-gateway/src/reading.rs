//! Reading: pages of heads and of history.

use crate::dependencies::DbClient;
use abi::{
    ApiError,
    ids::Conversation,
    v1::{GetHeads, GetHistory, HeadsPage, HeadsRequest, HistoryPage, HistoryRequest},
};

/// Reads conversations from the store on behalf of a user.
#[derive(Debug)]
pub struct Reading {
    app: String,
    db: DbClient,
}

impl Reading {
    pub(crate) fn new(app: &str, db: DbClient) -> Self {
        Self { app: app.into(), db }
    }

    /// A page of the user's heads.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a limit that is out of bounds; otherwise those of db-service.
    pub async fn heads(&self, user: &str, mut page: GetHeads) -> Result<HeadsPage, ApiError> {
        page.limit = page_limit(page.limit)?;
        let request = HeadsRequest { app: self.app.clone(), user: user.into(), page: Some(page) };
        Ok(self.db.clone().heads(request).await?.into_inner())
    }

    /// A page of a conversation, with the entries that the user may see and about `max_bytes` of content; at least one entry.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a limit, a conversation or a cursor that is invalid; otherwise those of db-service.
    pub async fn history(
        &self,
        user: &str,
        mut page: GetHistory,
        max_bytes: usize,
    ) -> Result<HistoryPage, ApiError> {
        page.limit = page_limit(page.limit)?;
        page.conversation = Conversation::parse(&page.conversation)?.to_string();
        let cursors = [page.after > 0, page.before > 0, page.newest];
        if cursors.into_iter().filter(|is_set| *is_set).count() > 1 {
            return Err(ApiError::invalid("set at most one of after, before and newest"));
        }
        let (app, max_bytes) = (self.app.clone(), max_bytes as u64);
        let request = HistoryRequest { app, user: user.into(), page: Some(page), max_bytes };
        Ok(self.db.clone().history(request).await?.into_inner())
    }
}

/// The number of entries or heads of a page that a device requested.
///
/// # Errors
/// `INVALID_REQUEST` if it is out of bounds.
pub(crate) fn page_limit(limit: i32) -> Result<i32, ApiError> {
    match limit {
        0 => Ok(abi::DEFAULT_PAGE),
        1..=abi::MAX_PAGE => Ok(limit),
        _ => Err(ApiError::invalid(format!(
            "limit must be 1 to {}, or 0 for {}, got {limit}",
            abi::MAX_PAGE,
            abi::DEFAULT_PAGE
        ))),
    }
}
