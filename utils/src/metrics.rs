//! Metrics of this crate.

use metrics::{counter, describe_counter, describe_gauge, gauge};

/// Registers the help texts of this crate's metrics. Call it once at program start, after the recorder is installed.
pub fn describe_metrics() {
    describe_gauge!("godwit_utils_build_info", "Always 1; the labels name the program and its version.");
    describe_gauge!(
        "godwit_utils_ready",
        "1 while all dependencies are ready and the program is not draining, otherwise 0."
    );
    describe_counter!(
        "godwit_utils_spans_total",
        "Spans of traced messages, by whether they reached the collector."
    );
    describe_counter!("godwit_utils_tasks_failed_total", "Tasks that failed or panicked.");
    describe_gauge!("godwit_utils_known_instances", "Instances of a service that discovery knows.");
    describe_counter!(
        "godwit_utils_endpoints_ejected_total",
        "Ejections: an instance got no calls for a while because calls to it had failed."
    );
    describe_counter!(
        "godwit_utils_calls_retried_total",
        "Calls that were retried because an instance was unavailable."
    );
    describe_counter!(
        "godwit_utils_tls_handshakes_failed_total",
        "Connections that were refused because the TLS handshake failed or the certificate was not valid."
    );
}

/// Names the program and its version.
pub(crate) fn program(name: &'static str, version: &'static str) {
    gauge!("godwit_utils_build_info", "program" => name, "version" => version).set(1.0);
}

/// An export of `count` spans succeeded or failed.
#[cfg(feature = "otlp")]
pub(crate) fn spans(count: usize, ok: bool) {
    let outcome = if ok { "exported" } else { "failed" };
    counter!("godwit_utils_spans_total", "outcome" => outcome).increment(count as u64);
}

/// Sets whether the program is ready.
pub(crate) fn ready(ready: bool) {
    gauge!("godwit_utils_ready").set(if ready { 1.0 } else { 0.0 });
}

/// A task starts. Its counter starts at 0. Otherwise an alert on an increase would miss the first event.
pub(crate) fn task(name: &'static str) {
    counter!("godwit_utils_tasks_failed_total", "task" => name).increment(0);
}

/// A task failed or panicked.
pub(crate) fn task_failed(name: &'static str) {
    counter!("godwit_utils_tasks_failed_total", "task" => name).increment(1);
}

/// A channel to a service exists. Its counters start at 0; see [`task`].
pub(crate) fn calls(service: &'static str) {
    counter!("godwit_utils_endpoints_ejected_total", "service" => service).increment(0);
    counter!("godwit_utils_calls_retried_total", "service" => service).increment(0);
}

/// An endpoint was ejected.
pub(crate) fn endpoint_ejected(service: &'static str) {
    counter!("godwit_utils_endpoints_ejected_total", "service" => service).increment(1);
}

/// A call is retried.
pub(crate) fn call_retried(service: &'static str) {
    counter!("godwit_utils_calls_retried_total", "service" => service).increment(1);
}

/// Sets the number of known instances of a service.
pub(crate) fn instances(service: &'static str, known: usize) {
    gauge!("godwit_utils_known_instances", "service" => service).set(known as f64);
}

/// A server, `gateway` or `grpc`, starts to accept connections. Its counter starts at 0; see [`task`].
pub(crate) fn handshakes(server: &'static str) {
    counter!("godwit_utils_tls_handshakes_failed_total", "server" => server).increment(0);
}

/// The TLS handshake of a peer with a server failed.
pub(crate) fn handshake_failed(server: &'static str) {
    counter!("godwit_utils_tls_handshakes_failed_total", "server" => server).increment(1);
}
