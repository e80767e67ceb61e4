//! gRPC servers, and channels to local and remote services.
//!
//! All channels have the same type, [`Channel`], so that callers can't tell local from remote:
//! - [`local`]: a server in this process, called directly as a tower service.
//! - [`balanced`]: any instance of a service, with load balancing, ejection and retries.
//! - [`KeyedPool`]: the instance at a given address.
//!
//! Every call ends within its deadline: its own (`grpc-timeout`) or the channel's default. Every failure is a
//! [`tonic::Status`]. `UNAVAILABLE` means that the caller may retry.

mod balance;
mod deadline;
mod ejection;
mod endpoint;
mod keyed;
mod load;
mod retry;
mod server;

pub use deadline::{Deadline, DeadlineLayer};
pub use keyed::KeyedPool;
pub use server::Server;

use crate::{Channel, discovery::Instances, tls::MutualTls};
use balance::Balance;
use http::Response;
use retry::RetryLayer;
use std::{convert::Infallible, time::Duration};
use tonic::{Status, body::Body, service::Routes};
use tower::{BoxError, ServiceBuilder, load_shed::error::Overloaded, util::BoxCloneSyncService};

/// Options of a [`balanced`] channel.
#[derive(Clone, Debug)]
pub struct Options {
    /// Deadline of calls without their own. It covers all attempts of a call.
    pub deadline: Duration,
    /// Attempts per call, including the first. Calls must be idempotent.
    pub tries: u32,
    /// Limit of calls in flight; further calls fail with `UNAVAILABLE`.
    pub max_in_flight: usize,
    /// Set if the services use mutual TLS.
    pub tls: Option<MutualTls>,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(5), tries: 3, max_in_flight: 4096, tls: None }
    }
}

/// A channel to services of this process. A call costs microseconds and needs no listener.
///
/// `deadline` applies to calls without their own.
pub fn local(routes: Routes, deadline: Duration) -> Channel {
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            // Only tonic's transport enforces `grpc-timeout`, and a local call does not pass through it.
            .layer(DeadlineLayer::new(deadline))
            .map_err(|never: Infallible| match never {})
            .service(routes.prepare()),
    )
}

/// A channel to any instance of a service. `service` is its name in logs and metrics.
///
/// The channel follows changes of `instances` until its last clone is dropped. Must be called in a runtime.
pub fn balanced(service: &'static str, instances: Instances, options: Options) -> Channel {
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            // Outermost: converts all remaining errors to a status.
            .map_result(into_status)
            // Outside of the retries: all attempts share one deadline.
            .layer(DeadlineLayer::new(options.deadline))
            // Before the retry layer buffers the request, so that a refused call costs little.
            .load_shed()
            .concurrency_limit(options.max_in_flight)
            // Outside of the balancer: each attempt chooses an endpoint that was not tried yet.
            .layer(RetryLayer::new(service, options.tries))
            .service(Balance::new(service, instances, options.tls)),
    )
}

/// Converts an error to a response with a status code that callers can act on.
fn into_status(result: Result<Response<Body>, BoxError>) -> Result<Response<Body>, BoxError> {
    result.or_else(|error| {
        let status = if error.is::<Overloaded>() {
            Status::unavailable("too many calls in flight")
        } else {
            Status::unavailable(crate::error::chain(&*error))
        };
        Ok(status.into_http())
    })
}

#[cfg(test)]
mod tests;
