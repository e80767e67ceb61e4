//! What is counted here.

use metrics::{counter, gauge};

/// A task failed or panicked.
pub(crate) fn task_failed(name: &'static str) {
    counter!("godwit_utils_tasks_failed_total", "task" => name).increment(1);
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
