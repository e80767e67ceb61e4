//! Tower layers for handlers of single records and of batches: they are generic over [`Delivered`](crate::Delivered).
//!
//! ```
//! use kafka_runtime::layers::{CatchPanicLayer, ConcurrencyLayer, DeadlineLayer, MetricsLayer, RetryLayer, TraceLayer};
//! use kafka_runtime::{Backoff, HandlerError, Message, RecordHandler, RetryPolicy};
//! use std::num::NonZeroU32;
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//!
//! fn handler() -> impl RecordHandler {
//!     let quickly = Backoff { first: Duration::from_millis(5), max: Duration::from_millis(20), jitter: 0.5 };
//!     ServiceBuilder::new()
//!         .layer(TraceLayer)
//!         // Outside of the retries: this measures the whole time that the partition waits.
//!         .layer(MetricsLayer::new("mail"))
//!         .layer(RetryLayer::new(RetryPolicy { attempts: NonZeroU32::new(3), backoff: quickly }))
//!         // Inside of the retries: a waiting call holds no permit, and each attempt has its own deadline.
//!         .layer(ConcurrencyLayer::new(8))
//!         .layer(DeadlineLayer::new(Duration::from_secs(2)))
//!         .layer(CatchPanicLayer)
//!         .service_fn(|message: Message| async move {
//!             println!("{}", message.record.offset);
//!             Ok::<_, HandlerError>(())
//!         })
//! }
//! # let _ = handler();
//! ```

mod catch_panic;
mod deadline;
mod metrics;
mod retry;
mod trace;

pub use catch_panic::{CatchPanic, CatchPanicLayer};
pub use deadline::{Deadline, DeadlineLayer};
pub use metrics::{Metrics, MetricsLayer};
pub use retry::{Retry, RetryLayer};
pub use trace::{Trace, TraceLayer};

/// Limits concurrent calls over all partitions of the consumer: all clones of a service share the limit.
pub use tower::limit::ConcurrencyLimitLayer as ConcurrencyLayer;

#[cfg(test)]
mod tests;
