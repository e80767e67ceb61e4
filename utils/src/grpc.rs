//! gRPC: servers, and channels to services wherever they run.
//!
//! A caller holds a [`Channel`] and can't tell which it is:
//! - [`local`]: a server in this process, called as the tower service that it is;
//! - [`balanced`]: any instance of a service: the least loaded, another one if that fails;
//! - [`KeyedPool`]: the one instance at a given address.
//!
//! Every call ends within its deadline: that of the call (`grpc-timeout`) where it has one, or the channel's. Every
//! failure is a [`tonic::Status`] whose code says what to do: `UNAVAILABLE` and `RESOURCE_EXHAUSTED` for "try again".

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
pub use server::{Server, bind};

use crate::{Channel, discovery::Instances, tls::MutualTls};
use balance::Balance;
use http::Response;
use retry::RetryLayer;
use std::{convert::Infallible, time::Duration};
use tonic::{Status, body::Body, service::Routes};
use tower::{BoxError, ServiceBuilder, load_shed::error::Overloaded, util::BoxCloneSyncService};

/// How a [`balanced`] channel behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// For calls that have no deadline of their own; all tries of a call together.
    pub deadline: Duration,
    /// How often a call is tried, the first time included. Calls must be idempotent.
    pub tries: u32,
    /// Calls in flight; more are refused with `RESOURCE_EXHAUSTED`.
    pub max_in_flight: usize,
    /// Where the services talk over TLS.
    pub tls: Option<MutualTls>,
}

impl Default for Options {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(5), tries: 3, max_in_flight: 4096, tls: None }
    }
}

/// A channel to services of this process. It costs microseconds, never fails to connect, and needs no listener.
///
/// `deadline` is for calls that have none of their own.
pub fn local(routes: Routes, deadline: Duration) -> Channel {
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            // In process nobody reads `grpc-timeout`: this layer does.
            .layer(DeadlineLayer::new(deadline))
            .map_err(|never: Infallible| match never {})
            .service(routes.prepare()),
    )
}

/// A channel to any instance of a service; `service` names it in logs and metrics.
///
/// The set of instances is followed for as long as a clone of the channel lives. Must be called in a runtime.
pub fn balanced(service: &'static str, instances: Instances, options: Options) -> Channel {
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            // Outermost: whatever is still an error becomes the status that says what to do.
            .map_result(into_status)
            // Around the tries: they share the time of the call.
            .layer(DeadlineLayer::new(options.deadline))
            // Before the request is copied for the tries: what is refused costs nothing.
            .load_shed()
            .concurrency_limit(options.max_in_flight)
            // Around the choice: each try chooses anew, and passes over those that it has tried.
            .layer(RetryLayer::new(service, options.tries))
            .service(Balance::new(service, instances, options.tls)),
    )
}

/// The last word on errors: callers get a status whose code they can act on.
fn into_status(result: Result<Response<Body>, BoxError>) -> Result<Response<Body>, BoxError> {
    result.or_else(|error| {
        let status = if error.is::<Overloaded>() {
            Status::resource_exhausted("too many calls in flight")
        } else {
            Status::unavailable(crate::error::chain(&*error))
        };
        Ok(status.into_http())
    })
}

#[cfg(test)]
mod tests;
