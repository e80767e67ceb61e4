//! Work of requests that must run to completion even if the client disconnects.

use abi::{ApiError, error::ErrorCode};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// Beyond this many tasks, no further background work is started.
const MAX_BACKGROUND_TASKS: usize = 10_000;

/// Runs the work of requests as tasks of its own. A clone shares the tasks.
#[derive(Clone, Debug, Default)]
pub struct RequestTasks(TaskTracker);

impl RequestTasks {
    /// Runs `work` to completion, also if the caller is dropped while it waits for the result.
    ///
    /// # Errors
    /// The error of `work`; `INTERNAL` if it panicked.
    pub async fn complete<T, F>(&self, work: F) -> Result<T, ApiError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let panicked =
            |_| ApiError::new(ErrorCode::Internal, "the request failed half-way; see the server's log");
        self.0.spawn(work).await.map_err(panicked).flatten()
    }

    /// Starts `work`, for which no caller waits. Drops it if too many tasks are running.
    pub fn start(&self, work: impl Future<Output = ()> + Send + 'static) {
        if self.0.len() < MAX_BACKGROUND_TASKS {
            self.0.spawn(work);
        }
    }

    /// Runs `work`, for which no caller waits and whose number its caller bounds. For callers outside of the runtime, such as
    /// callbacks of the log.
    pub fn run_on(&self, runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn_on(work, runtime);
    }

    /// Waits until all tasks have ended.
    pub async fn finish(&self) {
        self.0.close();
        self.0.wait().await;
    }

    /// Number of running tasks.
    pub fn running(&self) -> usize {
        self.0.len()
    }
}
