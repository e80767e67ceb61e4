//! Distributed traces of single messages, exported to an OpenTelemetry collector.
//!
//! Sampling happens per message. The service that receives a message decides at random ([`Spans::begin`]), and its
//! decision holds for all services. Other services create spans only for messages that arrive with a trace. Most messages
//! are not sampled and cost nothing.
//!
//! A batch or a call carries many messages, and any number of them may be sampled. Therefore one context is passed on
//! per sampled message ([`Spans`]), not one per call. Every sampled message has a complete trace of its own, although
//! other messages share its batches.
//!
//! Contexts travel as W3C Trace Context. A record has a `traceparent` header. A call has a `traceparent` and a `baggage`
//! with the message id for each message.

mod calls;
mod context;
#[cfg(feature = "otlp")]
mod export;
mod spans;
#[cfg(test)]
#[cfg(feature = "otlp")]
mod tests;
#[cfg(not(feature = "otlp"))]
mod without_export;

pub use context::TRACEPARENT;
pub use opentelemetry::trace::SpanKind as Kind;
pub use spans::Spans;

#[cfg(feature = "otlp")]
pub(crate) use export::start;
#[cfg(not(feature = "otlp"))]
pub(crate) use without_export::start;

use abi::config::Trace;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::OnceLock;

/// The exporter of this process; not set when tracing is off. One per process, like the log and the metrics recorder.
static EXPORT: OnceLock<Export> = OnceLock::new();

/// Creates and exports spans.
#[derive(Debug)]
struct Export {
    provider: SdkTracerProvider,
    /// Fraction of the incoming messages that is sampled, from 0 to 1.
    sample: f64,
}

/// Whether this process exports traces.
pub fn is_on() -> bool {
    EXPORT.get().is_some()
}

/// Config errors of `[trace]` in a program that was built without the export of traces.
pub fn config_errors(config: &Trace) -> Vec<String> {
    match start_error(config) {
        Some(error) => vec![error.to_owned()],
        None => Vec::new(),
    }
}

fn start_error(config: &Trace) -> Option<&'static str> {
    let is_missing = !cfg!(feature = "otlp") && !config.endpoint.is_empty();
    is_missing.then_some(
        "trace.endpoint: this program was built without the export of traces; build it with --features otlp",
    )
}
