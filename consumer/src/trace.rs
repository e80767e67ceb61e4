//! The spans of the messages that are followed: see [`utils::trace`].

use crate::segment::Logged;
use abi::v1::Entry;
use kafka_runtime::Batch;
use utils::trace::{self, Kind, Spans, TRACEPARENT};

/// Name of this service in traces.
const SERVICE: &str = "consumer";

/// Goes on with the traces of a segment's messages, as the headers of their records say.
pub(crate) fn follow(segment: &[Logged], batch: &Batch) -> Spans {
    let mut spans = Spans::default();
    if !trace::is_on() {
        return spans;
    }
    for Logged { index, entry, .. } in segment {
        let headers = &batch.records[*index].headers;
        if let Some((_, parent)) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT)) {
            spans.continue_trace(SERVICE, "handle", Kind::Consumer, &entry.message_id, parent);
        }
    }
    spans.set("messaging.batch.message_count", || count(batch.records.len()));
    spans.set("godwit.attempt", || i64::from(batch.attempt));
    spans
}

/// A span of a call with some entries, below that of each one.
pub(crate) fn children(spans: &Spans, name: &'static str, entries: &[Entry]) -> Spans {
    spans.children_among(name, Kind::Client, entries.iter().map(|entry| &*entry.message_id))
}

/// A number of things, as spans take it.
pub(crate) fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
