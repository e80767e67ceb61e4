//! Span export: a bounded queue, a thread that exports batches, and a final export at shutdown.

use super::{EXPORT, Export};
use crate::{Error, Phase, Shutdown, metrics};
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

/// Capacity of the export queue. When it is full, further spans are dropped.
const QUEUE: usize = 4_096;
/// Spans per export.
const BATCH: usize = 512;
/// How long a span waits for its batch to fill.
const DELAY: Duration = Duration::from_secs(1);
/// Time limit of an export. Its spans are dropped after that.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time limit of the final export at shutdown.
const FINAL_EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// Starts the export if a collector is configured; `shutdown` stops it. Must be called in a runtime. The collector need
/// not be reachable.
///
/// # Errors
/// The endpoint is not valid.
pub(crate) fn start(
    program: &'static str,
    version: &'static str,
    config: &Trace,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    if config.endpoint.is_empty() {
        return Ok(());
    }
    let exporter = OtlpExporter::builder()
        .with_tonic()
        .with_endpoint(config.endpoint.as_str())
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| Error::Telemetry { reason: format!("trace.endpoint: {error}") })?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let processor =
        BatchSpanProcessor::builder(CountingExporter { exporter, is_failing: AtomicBool::new(false) })
            .with_batch_config(batches)
            .build();
    let instance = format!("{:016x}", rand::random::<u64>());
    let resource = Resource::builder_empty()
        .with_service_name(program)
        .with_attribute(KeyValue::new("service.version", version))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(resource)
        // Sampling is decided per message, before a span is created.
        .with_sampler(Sampler::AlwaysOn)
        .build();
    let export = Export { provider: provider.clone(), sample: config.sample };
    EXPORT.set(export).map_err(|_| Error::Telemetry { reason: "tracing was started twice".into() })?;
    tracing::info!(endpoint = config.endpoint, sample = config.sample, "tracing of messages started");
    shutdown.on(Phase::Telemetry, "traces", async move {
        // The call blocks, and the exporter may need this thread to send.
        let last = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FINAL_EXPORT_TIMEOUT));
        if let Ok(Err(error)) = last.await {
            tracing::warn!(%error, "the final export of spans failed");
        }
    });
    Ok(())
}

/// Counts exported spans, and logs when exports start to fail and when they work again.
#[derive(Debug)]
struct CountingExporter {
    exporter: OtlpExporter,
    is_failing: AtomicBool,
}

impl SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.exporter.export(batch).await;
        metrics::spans(count, result.is_ok());
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "spans don't reach the collector and are lost; messages are not affected");
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
