//! The spans of traced messages: see [`utils::trace`].

use crate::segment::LoggedEntry;
use abi::v1::Entry;
use kafka_runtime::Batch;
use utils::trace::{self, Kind, Spans, TRACEPARENT};

/// Name of this service in traces.
const SERVICE: &str = "consumer";

/// Starts a span for each traced message of a segment. The headers of its record contain the parent span.
pub(crate) fn start_spans(segment: &[LoggedEntry], batch: &Batch) -> Spans {
    let mut spans = Spans::default();
    if !trace::is_on() {
        return spans;
    }
    for LoggedEntry { index, entry, .. } in segment {
        let headers = &batch.records[*index].headers;
        if let Some((_, parent)) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT)) {
            spans.continue_trace(SERVICE, "handle", Kind::Consumer, &entry.message_id, parent);
        }
    }
    spans.set("messaging.batch.message_count", || attribute(batch.records.len()));
    spans.set("godwit.attempt", || i64::from(batch.attempt));
    spans
}

/// Child spans, for a call with these entries.
pub(crate) fn child_spans(spans: &Spans, name: &'static str, entries: &[Entry]) -> Spans {
    spans.children_among(name, Kind::Client, entries.iter().map(|entry| &*entry.message_id))
}

/// Converts a count to a span attribute.
pub(crate) fn attribute(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
