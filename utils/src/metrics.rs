//! What is counted here.

use metrics::counter;

/// A task failed or panicked.
pub(crate) fn task_failed(name: &'static str) {
    counter!("godwit_utils_tasks_failed_total", "task" => name).increment(1);
}
