//! Distributed traces of single messages, exported to an OpenTelemetry collector.
//!
//! Sampling happens per message. The service that receives a message decides at random ([`Spans::begin`]), and its
//! decision holds for all services. Other services create spans only for messages that arrive with a trace. Most messages
//! are not sampled and cost nothing.
//!
//! A batch or a call carries many messages, and any number of them may be sampled. Therefore one context is passed on
//! per sampled message ([`Spans`]), not one per call. Every sampled message has a complete trace of its own, whichever
//! messages shared its batches.
//!
//! Contexts travel as W3C Trace Context. A record has a `traceparent` header. A call has a `traceparent` and a `baggage`
//! with the message id for each message.

mod calls;
mod context;
mod export;
mod spans;
#[cfg(test)]
mod tests;

pub use context::TRACEPARENT;
pub use export::is_on;
pub use opentelemetry::trace::SpanKind as Kind;
pub use spans::Spans;

pub(crate) use export::start;
