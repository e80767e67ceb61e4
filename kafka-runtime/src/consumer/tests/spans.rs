//! Spans around the work.

use super::*;
use std::fmt::Debug;
use tracing::field::{Field, Visit};
use tracing::span::Attributes;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Each new span, with its fields and with what it lies in.
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
async fn there_is_a_span_around_a_partition_and_in_it_one_around_each_attempt() {
    let spans = Spans::default();
    let subscriber = tracing_subscriber::registry().with(spans.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut script = script(Duration::from_millis(1)).await;
    script.feed(5);
    assert_eq!(script.handled.recv().await, Some(5));
    script.stop().await;
    let spans = spans.0.lock().unwrap();
    let expected = [
        "/partition topic=\"events\" partition=7 consumer=\"consumer\"",
        "partition/batch first_offset=5 records=1 attempt=1",
    ];
    assert_eq!(*spans, expected);
}
