//! Trace propagation in the metadata of gRPC calls, remote or within the process.

use super::{
    context::{TRACEPARENT, write},
    spans::Spans,
};
use opentelemetry::trace::{Span as _, SpanKind};
use tonic::{Request, metadata::MetadataMap};

/// W3C Baggage. Each `traceparent` has one; it names the message of the trace.
const BAGGAGE: &str = "baggage";
const MESSAGE: &str = "godwit.message_id=";
/// Traces that one call carries at most, because the size of headers is limited. Further traces end at the caller.
const MAX_TRACES: usize = 32;

impl Spans {
    /// Adds the spans' contexts to a call. The callee's spans become their children.
    pub fn inject<T>(&self, request: &mut Request<T>) {
        for sampled in self.0.iter().take(MAX_TRACES) {
            let parent = write(sampled.span.span_context()).parse();
            let message = format!("{MESSAGE}{}", sampled.message).parse();
            if let (Ok(parent), Ok(message)) = (parent, message) {
                request.metadata_mut().append(TRACEPARENT, parent);
                request.metadata_mut().append(BAGGAGE, message);
            }
        }
    }

    /// Starts a span for each context in the metadata of a call.
    pub fn extract(service: &'static str, name: &'static str, metadata: &MetadataMap) -> Self {
        let mut spans = Self::default();
        let parents = metadata.get_all(TRACEPARENT).into_iter();
        let messages = metadata.get_all(BAGGAGE).into_iter();
        for (parent, message) in parents.zip(messages).take(MAX_TRACES) {
            let message = message.to_str().ok().and_then(|baggage| baggage.strip_prefix(MESSAGE));
            if let Some(message) = message {
                spans.continue_trace(service, name, SpanKind::Server, message, parent.as_bytes());
            }
        }
        spans
    }
}
