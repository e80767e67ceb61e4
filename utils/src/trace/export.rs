//! The way of spans to the collector: a bounded queue, a thread that empties it in batches, and a last batch at the stop.

use super::EXPORT;
use crate::{Error, Phase, Shutdown, cli::Program, metrics};
use abi::config::Trace;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter},
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Spans that wait to be exported; more are dropped.
const QUEUE: usize = 4_096;
/// Spans of one export.
const BATCH: usize = 512;
/// Spans wait so long for others.
const DELAY: Duration = Duration::from_secs(1);
/// An export that takes longer is given up, with its spans.
const EXPORT_LIMIT: Duration = Duration::from_secs(3);
/// The last export at a stop has so long.
const LAST: Duration = Duration::from_secs(3);

/// Makes spans and sends them.
#[derive(Debug)]
pub(super) struct Export {
    pub(super) provider: SdkTracerProvider,
    /// Which part of the messages that come in is followed, from 0 to 1.
    pub(super) sample: f64,
}

/// Starts to tell of the messages that are followed, if a collector is configured, until `shutdown` stops it. Must be called in
/// a runtime. The collector need not be there, now or ever.
///
/// # Errors
/// The endpoint can't be one.
pub(crate) fn start(program: &Program, config: &Trace, shutdown: &Shutdown) -> Result<(), Error> {
    if config.endpoint.is_empty() {
        return Ok(());
    }
    let exporter = OtlpExporter::builder()
        .with_tonic()
        .with_endpoint(config.endpoint.as_str())
        .with_timeout(EXPORT_LIMIT)
        .build()
        .map_err(|error| Error::Telemetry { reason: format!("trace.endpoint: {error}") })?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let processor = BatchSpanProcessor::builder(Watched { exporter, is_failing: AtomicBool::new(false) })
        .with_batch_config(batches)
        .build();
    let instance = format!("{:016x}", rand::random::<u64>());
    let resource = Resource::builder_empty()
        .with_service_name(program.name)
        .with_attribute(KeyValue::new("service.version", program.version))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(resource)
        // Who is followed was decided before there is a span.
        .with_sampler(Sampler::AlwaysOn)
        .build();
    let export = Export { provider: provider.clone(), sample: config.sample };
    EXPORT.set(export).map_err(|_| Error::Telemetry { reason: "traces were started twice".into() })?;
    tracing::info!(endpoint = config.endpoint, sample = config.sample, "messages are followed");
    shutdown.on(Phase::Telemetry, "traces", async move {
        // It blocks, and what sends the spans may run on this very thread.
        let last = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST));
        if let Ok(Err(error)) = last.await {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    });
    Ok(())
}

/// Counts what is exported, and tells when that begins to fail and when it goes on.
#[derive(Debug)]
struct Watched {
    exporter: OtlpExporter,
    is_failing: AtomicBool,
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.exporter.export(batch).await;
        metrics::spans(count, result.is_ok());
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "spans don't reach the collector and are lost; messages are not concerned");
            }
            Ok(()) if was_failing => tracing::info!("spans reach the collector again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
