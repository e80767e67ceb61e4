//! gRPC: servers, and channels to services wherever they run.
//!
//! A caller holds a [`Channel`](crate::Channel) and can't tell which it is:
//! - [`local`]: a server in this process, called as the tower service that it is.
//!
//! Every call ends within its deadline: that of the call (`grpc-timeout`) where it has one, or the channel's.

mod deadline;
mod server;

pub use deadline::{Deadline, DeadlineLayer};
pub use server::{Server, bind};

use std::time::Duration;
use tonic::service::Routes;
use tower::{ServiceBuilder, util::BoxCloneSyncService};

/// A channel to services of this process. It costs microseconds, never fails to connect, and needs no listener.
///
/// `deadline` is for calls that have none of their own.
pub fn local(routes: Routes, deadline: Duration) -> crate::Channel {
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            // In process nobody reads `grpc-timeout`: this layer does.
            .layer(DeadlineLayer::new(deadline))
            .map_err(|never: std::convert::Infallible| match never {})
            .service(routes.prepare()),
    )
}

#[cfg(test)]
mod tests;
