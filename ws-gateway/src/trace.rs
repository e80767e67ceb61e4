//! Spans of traced messages and changes; see [`utils::trace`].

use abi::v1::Entry;
use kafka_runtime::Position;
use utils::trace::Spans;

/// Name of this service in traces.
pub(crate) const SERVICE: &str = "ws-gateway";

/// Begins the trace of an entry if it is sampled.
pub(crate) fn begin(name: &'static str, entry: &Entry) -> Spans {
    let mut spans = Spans::begin(SERVICE, name, &entry.message_id);
    spans.set("godwit.conversation", || entry.conversation.clone());
    spans
}

/// Ends the spans of a record that the log has at `position`.
pub(crate) fn logged(mut spans: Spans, position: Position) {
    spans.set("messaging.destination.partition.id", || i64::from(position.partition));
    spans.set("messaging.kafka.offset", || position.offset);
    spans.finish();
}
