//! Infrastructure that all Godwit programs share: configuration, startup and shutdown, calls between services,
//! service discovery, TLS and telemetry. No message handling lives here.
//!
//! Guarantees:
//! - All config errors are reported at once.
//! - A process is ready only when each of its dependencies has answered, and it stops in a fixed order within a deadline.
//! - Every task has an owner.
//! - A call to another service ends within its deadline, wherever that service runs.
//! - Every queue, cache and table is bounded.
//!
//! Start and stop:
//! - [`config`]: defaults < file < environment < command line, into one struct.
//! - [`cli`]: the options that all programs share, and [`cli::run_main`].
//! - [`lifecycle`]: [`lifecycle::Drain`], [`lifecycle::Tasks`] and the shutdown phases.
//! - [`listener`]: addresses to listen on, and accepting. [`descriptors`]: the limit of open files.
//! - [`host`]: gRPC listener, registration and admin server of a service in distributed mode.
//! - [`readiness`]: one latch per dependency.
//! - [`admin`]: `/livez`, `/readyz`, `/metrics`, and routes that require the operator's token.
//! - [`telemetry`]: logs and the metrics recorder. [`trace`]: distributed traces of single messages.
//!
//! Calls:
//! - [`grpc`]: servers, and channels to services in this process, to any instance, or to a named one.
//! - [`discovery`]: the instances of a service, and the registration of this process.
//! - [`tls`]: certificates, between the services and towards devices.
//!
//! Building blocks:
//! - [`backoff`]: pauses between retries. [`clock`]: wall-clock time. [`log_limit`]: rare log lines for frequent events.
//! - [`rate`]: token buckets. [`problem`]: errors over HTTP.

pub mod admin;
pub mod backoff;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod certificates;
pub mod cli;
pub mod clock;
pub mod config;
pub mod descriptors;
pub mod discovery;
pub mod error;
pub mod grpc;
pub mod host;
pub mod lifecycle;
pub mod listener;
pub mod log_limit;
pub mod problem;
pub mod rate;
pub mod readiness;
pub mod telemetry;
pub mod tls;
pub mod trace;

mod metrics;
#[cfg(test)]
mod testing;

pub use abi::Channel;
pub use error::Error;
pub use lifecycle::{Drain, Phase, Shutdown, Tasks};
pub use metrics::describe_metrics;
pub use readiness::{Latch, Readiness};
