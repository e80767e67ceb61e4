//! Traces in the metadata of gRPC calls, over the network or within the process.

use super::{Kind, Spans, TRACEPARENT, write};
use opentelemetry::trace::Span as _;
use tonic::{Request, metadata::MetadataMap};

/// W3C Baggage, beside each `traceparent`: the message whose trace that is.
const BAGGAGE: &str = "baggage";
const MESSAGE: &str = "godwit.message_id=";
/// Most messages whose traces one call carries: headers have a bound. The traces of others end where they are.
const MAX_CARRIED: usize = 32;

impl Spans {
    /// Makes a call part of the traces: who answers it goes on below these spans.
    pub fn inject<T>(&self, request: &mut Request<T>) {
        for followed in self.0.iter().take(MAX_CARRIED) {
            let parent = write(followed.span.span_context()).parse();
            let message = format!("{MESSAGE}{}", followed.message).parse();
            if let (Ok(parent), Ok(message)) = (parent, message) {
                request.metadata_mut().append(TRACEPARENT, parent);
                request.metadata_mut().append(BAGGAGE, message);
            }
        }
    }

    /// Goes on with the traces that a call carries.
    pub fn extract(service: &'static str, name: &'static str, metadata: &MetadataMap) -> Self {
        let mut spans = Self::default();
        let parents = metadata.get_all(TRACEPARENT).into_iter();
        let messages = metadata.get_all(BAGGAGE).into_iter();
        for (parent, message) in parents.zip(messages).take(MAX_CARRIED) {
            let message = message.to_str().ok().and_then(|baggage| baggage.strip_prefix(MESSAGE));
            if let Some(message) = message {
                spans.continue_trace(service, name, Kind::Server, message, parent.as_bytes());
            }
        }
        spans
    }
}
