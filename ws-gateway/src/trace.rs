//! The spans of what is followed: see [`utils::trace`].

use abi::v1::Entry;
use kafka_runtime::Position;
use utils::trace::Spans;

/// Name of this service in traces.
pub(crate) const SERVICE: &str = "ws-gateway";

/// Perhaps begins the trace of an entry that came in.
pub(crate) fn begin(name: &'static str, entry: &Entry) -> Spans {
    let mut spans = Spans::begin(SERVICE, name, &entry.message_id);
    spans.set("godwit.conversation", || entry.conversation.clone());
    spans
}

/// The log has the record that these spans stand for.
pub(crate) fn logged(mut spans: Spans, position: Position) {
    spans.set("messaging.destination.partition.id", || i64::from(position.partition));
    spans.set("messaging.kafka.offset", || position.offset);
    spans.finish();
}
