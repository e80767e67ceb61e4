use super::{EXPORT, Export, Kind, Spans, TRACEPARENT, context::read};
use opentelemetry::{SpanId, TraceId, trace::Status};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use std::sync::{Arc, Mutex, OnceLock};
use tonic::{Request, metadata::MetadataMap};

/// The exported spans of all tests in this process.
#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

fn exported() -> &'static Exported {
    static EXPORTED: OnceLock<Exported> = OnceLock::new();
    EXPORTED.get_or_init(|| {
        let exported = Exported::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
        assert!(EXPORT.set(Export { provider, sample: 1.0 }).is_ok(), "only this function sets it");
        exported
    })
}

/// The ended spans of one trace, in the order in which they ended.
fn ended(trace: TraceId) -> Vec<SpanData> {
    let spans = exported().0.lock().unwrap();
    spans.iter().filter(|span| span.span_context.trace_id() == trace).cloned().collect()
}

fn begin(message: &str) -> (Spans, TraceId) {
    use opentelemetry::trace::Span as _;
    exported();
    let spans = Spans::begin("ws-gateway", "send", message);
    let trace = spans.0[0].span.span_context().trace_id();
    (spans, trace)
}

fn metadata(spans: &Spans) -> MetadataMap {
    let mut request = Request::new(());
    spans.inject(&mut request);
    request.metadata().clone()
}

#[test]
fn a_trace_continues_through_a_record_and_a_call() {
    let (send, trace) = begin("m1");
    let log = send.children("log", Kind::Producer);
    let headers = log.headers();
    assert_eq!(headers[0].0, "traceparent");
    let mut handle = Spans::default();
    handle.continue_trace("consumer", "handle", Kind::Consumer, "m1", &headers[0].1);
    let call = handle.children("save", Kind::Client);
    let save = Spans::extract("db-service", "save", &metadata(&call));
    for spans in [save, call, handle, log, send] {
        spans.finish();
    }
    let spans = ended(trace);
    let names: Vec<_> = spans.iter().map(|span| (span.instrumentation_scope.name(), &*span.name)).collect();
    let expected = [
        ("db-service", "save"),
        ("consumer", "save"),
        ("consumer", "handle"),
        ("ws-gateway", "log"),
        ("ws-gateway", "send"),
    ];
    assert_eq!(names, expected);
    for (span, parent) in spans.iter().zip(&spans[1..]) {
        assert_eq!(span.parent_span_id, parent.span_context.span_id());
        assert_eq!(span.status, Status::Unset);
    }
    assert_eq!(spans[4].parent_span_id, SpanId::INVALID);
}

#[test]
fn every_message_of_a_call_keeps_its_own_trace() {
    let (mut both, first) = begin("m1");
    let (mut other, second) = begin("m2");
    both.0.append(&mut other.0);
    let carried = Spans::extract("pusher", "push", &metadata(&both));
    carried.children_among("deliver", Kind::Client, ["m0", "m2"]).finish();
    carried.finish();
    let names = |trace| ended(trace).into_iter().map(|span| span.name.into_owned()).collect::<Vec<_>>();
    assert_eq!(names(first), ["push"]);
    assert_eq!(names(second), ["deliver", "push"]);
}

#[test]
fn a_dropped_span_has_an_error_status() {
    let (spans, trace) = begin("m1");
    drop(spans);
    assert!(matches!(ended(trace)[0].status, Status::Error { .. }));
}

#[test]
fn p7_the_number_of_traces_in_a_call_is_bounded() {
    let mut spans = Spans::default();
    for number in 0..40 {
        spans.0.append(&mut begin(&format!("{number:032}")).0.0);
    }
    let metadata = metadata(&spans);
    assert_eq!(metadata.get_all(TRACEPARENT).iter().count(), 32);
    // HTTP/2 servers accept 16 KiB of headers. Each header counts its name, its value and 32 bytes.
    let headers = metadata.clone().into_headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    assert!(bytes < 8 << 10, "{bytes}");
    assert_eq!(Spans::extract("pusher", "push", &metadata).0.len(), 32);
}

#[test]
fn a_malformed_or_unsampled_traceparent_is_ignored() {
    assert!(read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").is_some());
    assert!(read("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more").is_some());
    for header in [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-xaf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert!(read(header).is_none(), "{header}");
    }
}
