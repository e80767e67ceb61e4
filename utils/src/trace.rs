//! Traces: the way of single messages through the services, told to an OpenTelemetry collector.
//!
//! Most messages are not followed, and cost nothing. Chance decides where a message comes in ([`Spans::begin`]), once for all
//! services; further on there are spans only for what brings the trace of a message with it.
//!
//! A batch or a call holds many messages, of which any number is followed. So what is passed on is not one context but one for
//! each of those messages ([`Spans`]): every message that is followed has a whole trace of its own, with the right parents,
//! whatever it travelled with.
//!
//! A trace travels in the headers of W3C Trace Context: in a record of the log as `traceparent`, in a call as `traceparent` with
//! `baggage` that names the message, once per message.

mod calls;
mod export;
mod spans;
#[cfg(test)]
mod tests;

pub use opentelemetry::trace::SpanKind as Kind;
pub use spans::Spans;

pub(crate) use export::start;

use export::Export;
use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceState},
};
use std::sync::OnceLock;

/// Name of the header of a record or a call that says of which trace and below which span it is.
pub const TRACEPARENT: &str = "traceparent";

/// Where spans go; not set where nothing is followed. One per process, as the log and the metrics recorder are.
static EXPORT: OnceLock<Export> = OnceLock::new();

/// Whether this process tells of the messages that are followed.
pub fn is_on() -> bool {
    EXPORT.get().is_some()
}

/// The context of a `traceparent` header, if it is well formed and says that the trace is followed.
fn read(traceparent: &str) -> Option<Context> {
    let mut parts = traceparent.split('-');
    let mut part = |length: usize| parts.next().filter(|part| part.len() == length);
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_followed = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    // Version 00 ends here; later ones may go on.
    if !is_followed || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    below(SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default()))
}

/// The header for what is below a span.
fn write(span: &SpanContext) -> String {
    format!("00-{}-{}-01", span.trace_id(), span.span_id())
}

/// What spans below this one take for their context.
fn below(span: SpanContext) -> Option<Context> {
    use opentelemetry::trace::TraceContextExt as _;
    span.is_valid().then(|| Context::new().with_remote_span_context(span))
}
