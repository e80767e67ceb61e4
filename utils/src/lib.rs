//! What every Godwit program needs and no message passes through: configuration, start and stop, calls between
//! services, finding each other, telemetry.
//!
//! It promises that all faults of a configuration are reported at once; that a process is ready only when each of
//! its dependencies has answered, and stops in a fixed order within a deadline; that every task has an owner; that a
//! call to another service ends within its deadline, wherever that service runs; and that nothing here grows
//! without a bound.
//!
//! Start and stop:
//! - [`config`]: defaults < file < environment < command line, into one struct.
//! - [`cli`]: the options that all programs share, and [`cli::run_main`].
//! - [`lifecycle`]: [`lifecycle::Drain`], [`lifecycle::Tasks`] and the phases of a stop.
//! - [`host`]: listeners, discovery and admin of a program of the distributed mode.
//! - [`readiness`]: one latch per dependency.
//! - [`admin`]: `/livez`, `/readyz`, `/metrics`, and what only an operator may ask for.
//! - [`telemetry`]: logs and the metrics recorder. [`trace`]: the way of single messages through the services.
//!
//! Calls:
//! - [`grpc`]: servers, and channels to services in this process, to any instance, or to a named one.
//! - [`discovery`]: which instances there are.
//! - [`tls`]: certificates, between the services and towards devices.
//!
//! Pieces:
//! - [`backoff`]: how long to wait before another try. [`clock`]: the time of day.
//! - [`rate`]: token buckets. [`problem`]: errors over HTTP.

pub mod admin;
pub mod backoff;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod certificates;
pub mod cli;
pub mod clock;
pub mod config;
pub mod discovery;
pub mod error;
pub mod grpc;
pub mod host;
pub mod lifecycle;
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
