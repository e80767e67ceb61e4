//! Saving a segment, with its place in the log.

use super::{MessageHandler, STORE_TIMEOUT, with_timeout};
use crate::{Error, segment::LoggedEntry, trace};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{SaveOutcome, SaveRequest, SaveResult},
};
use kafka_runtime::Batch;
use std::ops::Range;
use utils::trace::Spans;

/// A part of a partition of the log. The store raises its position over all records of the part, also over those that are not entries.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    topic: &'a str,
    partition: i32,
    /// The offsets of its records.
    pub(super) range: Range<i64>,
}

impl<'a> Part<'a> {
    /// The part that a batch has read.
    pub(super) fn of(batch: &'a Batch) -> Self {
        let offset = |record: &kafka_runtime::Record| record.offset;
        let first = batch.records.first().map_or(0, offset);
        let next = batch.records.last().map_or(first, |record| record.offset + 1);
        // The log may have no record between those that were saved before and the first one.
        let start = batch.follows.map_or(first, |follows| follows.min(first));
        Self { topic: &batch.topic, partition: batch.partition, range: start..next }
    }

    /// A request to save the entries of this part.
    fn request(&self, app: &str, entries: &[LoggedEntry]) -> SaveRequest {
        let Range { start, end } = self.range;
        let has_other_records = u64::try_from(entries.len()) != Ok(end.abs_diff(start));
        let offsets =
            entries.iter().filter(|_| has_other_records).map(|logged| logged.offset.abs_diff(start));
        SaveRequest {
            app: app.to_owned(),
            entries: entries.iter().map(|logged| logged.bytes.clone()).collect(),
            topic: self.topic.to_owned(),
            partition: self.partition,
            first_offset: start,
            next_offset: end,
            offsets: offsets.collect(),
        }
    }
}

impl MessageHandler {
    /// Saves all entries of a part in one call. If the store refuses that call as invalid, saves each entry in a call of its own, so
    /// that only the invalid ones are rejected.
    pub(super) async fn save(
        &self,
        app: &str,
        segment: &[LoggedEntry],
        part: &Part<'_>,
        spans: &Spans,
    ) -> Result<Vec<SaveResult>, Error> {
        match self.call_save(app, segment, part, spans).await {
            Err(Error::Save(error)) if is_permanent(&error) => {}
            result => return result,
        }
        let mut results = Vec::with_capacity(segment.len());
        let mut rest = part.clone();
        for (index, logged) in segment.iter().enumerate() {
            rest.range.end = segment.get(index + 1).map_or(part.range.end, |next| next.offset);
            match self.call_save(app, std::slice::from_ref(logged), &rest, spans).await {
                Ok(saved) => {
                    results.extend(saved);
                    rest.range.start = rest.range.end;
                }
                Err(Error::Save(error)) if is_permanent(&error) => results.push(SaveResult {
                    outcome: SaveOutcome::Rejected.into(),
                    error: Some(error.into()),
                    ..SaveResult::default()
                }),
                Err(error) => return Err(error),
            }
        }
        if !rest.range.is_empty() {
            self.skip(&rest).await?;
        }
        Ok(results)
    }

    /// Raises the position of the store over a part without entries. Otherwise the part would be read again after each assignment.
    pub(super) async fn skip(&self, part: &Part<'_>) -> Result<(), Error> {
        self.call_save("", &[], part, &Spans::default()).await.map(drop)
    }

    async fn call_save(
        &self,
        app: &str,
        segment: &[LoggedEntry],
        part: &Part<'_>,
        spans: &Spans,
    ) -> Result<Vec<SaveResult>, Error> {
        let message_ids = segment.iter().map(|logged| &*logged.envelope.message_id);
        let call_spans = trace::child_spans(spans, "save", message_ids);
        let mut request = with_timeout(part.request(app, segment), STORE_TIMEOUT);
        call_spans.inject(&mut request);
        let saved = self.db.clone().save(request).await;
        let saved = saved.map_err(|status| match ApiError::of_call(&status) {
            error if error.code == ErrorCode::Conflict => Error::StoreIsBehind(error),
            error => Error::Save(error),
        })?;
        call_spans.finish();
        let results = saved.into_inner().results;
        if results.len() != segment.len() {
            return Err(Error::UnexpectedResponse(
                "the number of results differs from the number of entries",
            ));
        }
        Ok(results)
    }
}

/// Whether a retry can't succeed.
fn is_permanent(error: &ApiError) -> bool {
    matches!(error.code, ErrorCode::InvalidRequest | ErrorCode::TooLarge)
}
