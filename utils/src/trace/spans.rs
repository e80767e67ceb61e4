//! A span for each of some messages.

use super::{EXPORT, Kind, below, read, write};
use bytes::Bytes;
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Span as _, Status, TracerProvider as _},
};
use opentelemetry_sdk::trace::Span;
use std::collections::HashSet;

/// Those of some messages that are followed, each in a span that has begun. Empty nearly always, and then every call here
/// returns at once.
///
/// What was done well is [finished](Self::finish). Spans that are dropped before that, by an error or because a call was given
/// up, end as failed.
#[derive(Debug, Default)]
pub struct Spans(pub(super) Vec<Followed>);

#[derive(Debug)]
pub(super) struct Followed {
    pub(super) service: &'static str,
    pub(super) message: String,
    pub(super) span: Span,
}

impl Spans {
    /// Decides by chance whether a message that came in is followed, and if so begins its trace.
    pub fn begin(service: &'static str, name: &'static str, message: &str) -> Self {
        let mut spans = Self::default();
        if EXPORT.get().is_some_and(|export| rand::random::<f64>() < export.sample) {
            spans.add(service, name, Kind::Server, message, &Context::new());
            spans.set("godwit.message_id", || message.to_owned());
        }
        spans
    }

    /// Goes on with the trace of a message, if `traceparent` says that it is followed.
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
        self.0.push(Followed { service, message: message.to_owned(), span });
    }

    /// Whether no message is followed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A span below each of these.
    pub fn children(&self, name: &'static str, kind: Kind) -> Self {
        self.children_where(name, kind, |_| true)
    }

    /// A span below each of these whose message is among `messages`.
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

    fn children_where(&self, name: &'static str, kind: Kind, holds: impl Fn(&str) -> bool) -> Self {
        let mut children = Self::default();
        for Followed { service, message, span } in &self.0 {
            if holds(message)
                && let Some(parent) = below(span.span_context().clone())
            {
                children.add(service, name, kind.clone(), message, &parent);
            }
        }
        children
    }

    /// Says something of each span: ids and numbers, never what a message says, nor secrets.
    pub fn set<V: Into<Value>>(&mut self, key: &'static str, value: impl Fn() -> V) {
        for followed in &mut self.0 {
            followed.span.set_attribute(KeyValue::new(key, value()));
        }
    }

    /// The headers of a record of the log that is written within the first of these.
    pub fn headers(&self) -> Vec<(String, Bytes)> {
        let header = |followed: &Followed| {
            (super::TRACEPARENT.to_owned(), Bytes::from(write(followed.span.span_context())))
        };
        self.0.first().map(header).into_iter().collect()
    }

    /// Ends the spans: what they stand for was done.
    pub fn finish(mut self) {
        self.0.drain(..).for_each(|mut followed| followed.span.end());
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        for followed in &mut self.0 {
            followed.span.set_status(Status::error("not finished"));
        }
    }
}
