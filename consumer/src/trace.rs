//! The spans of traced messages: see [`utils::trace`].

use crate::segment::LoggedEntry;
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
    for LoggedEntry { index, envelope, .. } in segment {
        let headers = &batch.records[*index].headers;
        if let Some((_, parent)) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT)) {
            spans.continue_trace(SERVICE, "handle", Kind::Consumer, &envelope.message_id, parent);
        }
    }
    spans.set("messaging.batch.message_count", || attribute(batch.records.len()));
    spans.set("godwit.attempt", || i64::from(batch.attempt));
    spans
}

/// Child spans, for a call with entries of these message ids.
pub(crate) fn child_spans<'a>(
    spans: &Spans,
    name: &'static str,
    message_ids: impl Iterator<Item = &'a str>,
) -> Spans {
    spans.children_among(name, Kind::Client, message_ids)
}

/// Converts a count to a span attribute.
pub(crate) fn attribute(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
