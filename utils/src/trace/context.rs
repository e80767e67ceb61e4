//! W3C Trace Context: reading and writing `traceparent`.

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceState},
};

/// Name of the header that carries the trace id and the parent span of a record or a call.
pub const TRACEPARENT: &str = "traceparent";

/// Parses a `traceparent`. Returns the parent context if it is well formed and sampled.
pub(super) fn read(traceparent: &str) -> Option<Context> {
    let mut parts = traceparent.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length);
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    // Version 00 has exactly four parts; later versions may append more.
    if !is_sampled || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    parent(SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default()))
}

/// Formats the `traceparent` for children of a span.
pub(super) fn write(span: &SpanContext) -> String {
    format!("00-{}-{}-01", span.trace_id(), span.span_id())
}

/// The context for children of a span.
pub(super) fn parent(span: SpanContext) -> Option<Context> {
    use opentelemetry::trace::TraceContextExt as _;
    span.is_valid().then(|| Context::new().with_remote_span_context(span))
}
