//! A span around each call.

use crate::record::Delivered;
use bytes::Bytes;
use std::task::{Context, Poll};
use tower::{Layer, Service};
use tracing::Span;
use tracing::instrument::{Instrument, Instrumented};

/// The header with the [trace context](https://www.w3.org/TR/trace-context/#traceparent-header) of a record.
const TRACEPARENT: &str = "traceparent";

/// Runs each call in the span `handle` with topic, partition, offset and attempt. If the (first) record has a valid
/// `traceparent` header (W3C), the span also has its `trace_id` and `parent_id`, which joins the logs with those of the
/// record's producer.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace { inner }
    }
}

/// The service of [`TraceLayer`].
#[derive(Clone, Debug)]
pub struct Trace<S> {
    inner: S,
}

impl<S, R> Service<R> for Trace<S>
where
    S: Service<R>,
    R: Delivered,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Instrumented<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let span = span(&request);
        let entered = span.enter();
        let future = self.inner.call(request);
        drop(entered);
        future.instrument(span)
    }
}

fn span(request: &impl Delivered) -> Span {
    let span = tracing::info_span!(
        "handle",
        topic = request.topic(),
        partition = request.partition(),
        offset = request.first_offset(),
        attempt = request.attempt(),
        trace_id = tracing::field::Empty,
        parent_id = tracing::field::Empty
    );
    if let Some((trace_id, parent_id)) = trace_context(request.headers()) {
        span.record("trace_id", trace_id).record("parent_id", parent_id);
    }
    span
}

/// Trace id and parent id of a valid `traceparent` header.
fn trace_context(headers: &[(String, Bytes)]) -> Option<(&str, &str)> {
    let (_, value) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT))?;
    let mut parts = std::str::from_utf8(value).ok()?.split('-');
    let mut part = |length: usize| {
        let part = parts.next()?;
        let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == length && is_hex).then_some(part)
    };
    let (version, trace_id, parent_id, _flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    // Version 00 ends here; later versions may have more fields.
    let is_known = version != "ff" && (version != "00" || parts.next().is_none());
    let is_set = |id: &str| id.bytes().any(|byte| byte != b'0');
    (is_known && is_set(trace_id) && is_set(parent_id)).then_some((trace_id, parent_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &'static str) -> Option<(String, String)> {
        let headers = [("Traceparent".to_owned(), Bytes::from_static(value.as_bytes()))];
        trace_context(&headers).map(|(trace, parent)| (trace.to_owned(), parent.to_owned()))
    }

    #[test]
    fn a_traceparent_header_gives_trace_and_parent_id() {
        let expected = ("0af7651916cd43dd8448eb211c80319c".to_owned(), "b7ad6b7169203331".to_owned());
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(parse(header), Some(expected.clone()));
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-comes-later";
        assert_eq!(parse(later), Some(expected));
    }

    #[test]
    fn a_malformed_header_is_ignored() {
        for header in [
            "",
            "00",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(header), None, "{header}");
        }
    }
}
