//! What is counted here.

use metrics::{counter, describe_counter, describe_gauge, gauge};

/// Tells the metrics recorder of this process what the metrics of this crate mean. For whoever starts a program, before they
/// are counted.
pub fn describe_metrics() {
    describe_gauge!("godwit_utils_build_info", "1; its labels say which program of which version this is.");
    describe_gauge!(
        "godwit_utils_ready",
        "1 while all dependencies have answered and the program is not stopping, or else 0."
    );
    describe_counter!(
        "godwit_utils_spans_total",
        "Spans of messages that are followed, by whether they reached the collector."
    );
    describe_counter!("godwit_utils_tasks_failed_total", "Tasks that failed or panicked.");
    describe_gauge!("godwit_utils_known_instances", "Instances of a service that discovery knows.");
    describe_counter!(
        "godwit_utils_endpoints_ejected_total",
        "Times that an instance was left alone because calls to it failed."
    );
    describe_counter!(
        "godwit_utils_calls_retried_total",
        "Calls that were made once more because an instance was unavailable."
    );
    describe_counter!(
        "godwit_utils_tls_handshakes_failed_total",
        "Connections that were refused because there was no TLS handshake or no good certificate."
    );
}

/// Which program this is.
pub(crate) fn program(name: &'static str, version: &'static str) {
    gauge!("godwit_utils_build_info", "program" => name, "version" => version).set(1.0);
}

/// So many spans were exported, or were not.
pub(crate) fn spans(count: usize, ok: bool) {
    let outcome = if ok { "exported" } else { "failed" };
    counter!("godwit_utils_spans_total", "outcome" => outcome).increment(count as u64);
}

/// Whether the program is ready, as of now.
pub(crate) fn ready(ready: bool) {
    gauge!("godwit_utils_ready").set(if ready { 1.0 } else { 0.0 });
}

/// A task begins. What is counted begins with 0 here.
pub(crate) fn task(name: &'static str) {
    counter!("godwit_utils_tasks_failed_total", "task" => name).increment(0);
}

/// A task failed or panicked.
pub(crate) fn task_failed(name: &'static str) {
    counter!("godwit_utils_tasks_failed_total", "task" => name).increment(1);
}

/// Calls to a service can be made from now on. What is counted begins with 0 here: an alert sees a rise, not a first value.
pub(crate) fn calls(service: &'static str) {
    counter!("godwit_utils_endpoints_ejected_total", "service" => service).increment(0);
    counter!("godwit_utils_calls_retried_total", "service" => service).increment(0);
}

/// An endpoint failed too often.
pub(crate) fn endpoint_ejected(service: &'static str) {
    counter!("godwit_utils_endpoints_ejected_total", "service" => service).increment(1);
}

/// A call is made once more.
pub(crate) fn call_retried(service: &'static str) {
    counter!("godwit_utils_calls_retried_total", "service" => service).increment(1);
}

/// Instances of a service that are known.
pub(crate) fn instances(service: &'static str, known: usize) {
    gauge!("godwit_utils_known_instances", "service" => service).set(known as f64);
}

/// A server, `gateway` or `grpc`, takes connections from now on, with TLS or without.
pub(crate) fn handshakes(server: &'static str) {
    counter!("godwit_utils_tls_handshakes_failed_total", "server" => server).increment(0);
}

/// A peer did not get through the TLS handshake of a server.
pub(crate) fn handshake_failed(server: &'static str) {
    counter!("godwit_utils_tls_handshakes_failed_total", "server" => server).increment(1);
}
