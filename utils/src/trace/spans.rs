//! Spans of the sampled messages of a batch.

use super::{
    EXPORT,
    context::{TRACEPARENT, parent, read, write},
};
use bytes::Bytes;
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Span as _, SpanKind as Kind, Status, TracerProvider as _},
};
use opentelemetry_sdk::trace::Span;
use std::collections::HashSet;

/// One open span per sampled message of a batch. Usually it is empty, and all its methods are then nearly free.
///
/// [`Spans::finish`] ends spans successfully. Spans that are dropped earlier, by an error or a cancelled call, end with
/// an error status.
#[derive(Debug, Default)]
pub struct Spans(pub(super) Vec<SampledMessage>);

#[derive(Debug)]
pub(super) struct SampledMessage {
    pub(super) service: &'static str,
    pub(super) message: String,
    pub(super) span: Span,
}

impl Spans {
    /// Decides at random whether to sample an incoming message. If so, starts its trace.
    pub fn begin(service: &'static str, name: &'static str, message: &str) -> Self {
        let mut spans = Self::default();
        if EXPORT.get().is_some_and(|export| rand::random::<f64>() < export.sample) {
            spans.add(service, name, Kind::Server, message, &Context::new());
            spans.set("godwit.message_id", || message.to_owned());
        }
        spans
    }

    /// Adds a span for a message if its `traceparent` is valid and sampled.
    pub fn continue_trace(
        &mut self,
        service: &'static str,
        name: &'static str,
        kind: Kind,
        message: &str,
        traceparent: &[u8],
    ) {
        if let Some(parent) = std::str::from_utf8(traceparent).ok().and_then(read) {
            self.add(service, name, kind, message, &parent);
        }
    }

    fn add(
        &mut self,
        service: &'static str,
        name: &'static str,
        kind: Kind,
        message: &str,
        parent: &Context,
    ) {
        use opentelemetry::trace::Tracer as _;
        let Some(export) = EXPORT.get() else { return };
        let tracer = export.provider.tracer(service);
        let builder = tracer.span_builder(name).with_kind(kind);
        let span = tracer.build_with_context(builder, parent);
        self.0.push(SampledMessage { service, message: message.to_owned(), span });
    }

    /// Whether no message is sampled.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Starts a child of each span.
    pub fn children(&self, name: &'static str, kind: Kind) -> Self {
        self.children_where(name, kind, |_| true)
    }

    /// Starts a child of each span whose message is among `messages`.
    pub fn children_among<'a>(
        &self,
        name: &'static str,
        kind: Kind,
        messages: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        if self.is_empty() {
            return Self::default();
        }
        let messages: HashSet<_> = messages.into_iter().collect();
        self.children_where(name, kind, |message| messages.contains(message))
    }

    fn children_where(&self, name: &'static str, kind: Kind, selects: impl Fn(&str) -> bool) -> Self {
        let mut children = Self::default();
        for SampledMessage { service, message, span } in &self.0 {
            if selects(message)
                && let Some(parent) = parent(span.span_context().clone())
            {
                children.add(service, name, kind.clone(), message, &parent);
            }
        }
        children
    }

    /// Sets an attribute of each span. Use ids and numbers; never the text of a message, and never secrets.
    pub fn set<V: Into<Value>>(&mut self, key: &'static str, value: impl Fn() -> V) {
        for sampled in &mut self.0 {
            sampled.span.set_attribute(KeyValue::new(key, value()));
        }
    }

    /// The trace headers of a record: the context of the first span.
    pub fn headers(&self) -> Vec<(String, Bytes)> {
        let header = |sampled: &SampledMessage| {
            (TRACEPARENT.to_owned(), Bytes::from(write(sampled.span.span_context())))
        };
        self.0.first().map(header).into_iter().collect()
    }

    /// Ends the spans successfully.
    pub fn finish(mut self) {
        self.0.drain(..).for_each(|mut sampled| sampled.span.end());
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        for sampled in &mut self.0 {
            sampled.span.set_status(Status::error("not finished"));
        }
    }
}
