//! Logs to standard error, and the metrics recorder of the process.

use crate::Error;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::{
    io::IsTerminal as _,
    sync::{Mutex, OnceLock, PoisonError},
};
use tracing_subscriber::{
    filter::{LevelFilter, ParseError, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Human-readable text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. `RUST_LOG` overrides `level`; both are filters such as `info` or `info,ws_gateway=debug`.
///
/// # Errors
/// The filter is not valid, or logging has already been started.
pub fn init(level: &str, format: Format) -> Result<(), Error> {
    let telemetry = |reason: String| Error::Telemetry { reason };
    let filter = match std::env::var("RUST_LOG") {
        Ok(rust_log) if !rust_log.is_empty() => {
            parse_filter(&rust_log).map_err(|error| telemetry(format!("RUST_LOG: {error}")))?
        }
        _ => parse_filter(level).map_err(|error| telemetry(format!("log.level: {error}")))?,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
    .map_err(|error| telemetry(error.to_string()))
}

/// Whether a string is a valid filter for [`init`].
pub fn is_filter(level: &str) -> bool {
    parse_filter(level).is_ok()
}

/// Parses a filter. Targets that it does not name log errors.
fn parse_filter(text: &str) -> Result<Targets, ParseError> {
    let filter: Targets = text.parse()?;
    let default = filter.default_level().unwrap_or(LevelFilter::ERROR);
    Ok(filter.with_default(default))
}

/// Buckets of histograms whose name ends in `_seconds`.
const SECONDS: [f64; 15] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Buckets of all other histograms, such as batch sizes.
const COUNTS: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0];

/// The recorder of this process. The first call installs it; metrics that are recorded earlier are lost.
///
/// # Errors
/// Other code has already installed a recorder.
pub fn metrics_recorder() -> Result<PrometheusHandle, Error> {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _only_one = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(recorder) = RECORDER.get() {
        return Ok(recorder.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets(&COUNTS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| Error::Telemetry { reason: error.to_string() })?;
    Ok(RECORDER.get_or_init(|| recorder).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorder_is_installed_once_and_shared() {
        let first = metrics_recorder().unwrap();
        let second = metrics_recorder().unwrap();
        metrics::counter!("godwit_utils_test_total").increment(3);
        assert!(first.render().contains("godwit_utils_test_total 3"));
        assert!(second.render().contains("godwit_utils_test_total 3"));
    }

    #[test]
    fn invalid_filters_are_rejected() {
        assert!(is_filter("info,ws_gateway=debug"));
        assert!(!is_filter("ws_gateway=loud"));
    }
}
