//! Tracing spans.

use super::*;
use std::fmt::Debug;
use tracing::field::{Field, Visit};
use tracing::span::Attributes;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Collects each new span with its fields and its parent.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl<S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, span: &Attributes<'_>, _: &tracing::Id, context: Context<'_, S>) {
        let outer = context.lookup_current().map(|outer| outer.name()).unwrap_or_default();
        let mut line = Line(format!("{outer}/{}", span.metadata().name()));
        span.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_has_a_span_and_each_attempt_a_child_span() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut consumer = slow_consumer(Duration::from_millis(1)).await;
    consumer.feed(5);
    assert_eq!(consumer.handled.recv().await, Some(5));
    consumer.stop().await;
    let spans = spans.0.lock().unwrap();
    let expected = [
        "/partition topic=\"events\" partition=7 consumer=\"consumer\"",
        "partition/batch first_offset=5 records=1 attempt=1",
    ];
    assert_eq!(*spans, expected);
}
