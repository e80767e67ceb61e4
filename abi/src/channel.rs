//! The type of all gRPC channels. Callers can't tell a remote service from one in their own process.

use std::{
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{Status, body::Body};
use tower::{
    BoxError, Service,
    util::{BoxCloneSyncService, MapErr},
};

/// A tower service for gRPC requests: a balanced stack, a single connection, or a server in this process.
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, BoxError>;

/// Opens channels to gateways by their advertised address, `host:port`. A channel need not be connected yet.
pub type Gateways = Arc<dyn Fn(&str) -> Channel + Send + Sync>;

/// A [`Channel`] for generated clients. Its errors are statuses, because the compiler can't prove that a generated
/// client's futures are `Send` if the errors are boxed.
#[derive(Clone, Debug)]
pub struct Caller(MapErr<Channel, fn(BoxError) -> Status>);

impl Caller {
    /// Wraps a channel.
    pub fn new(channel: Channel) -> Self {
        Self(MapErr::new(channel, Status::from_error))
    }
}

impl Service<http::Request<Body>> for Caller {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = <MapErr<Channel, fn(BoxError) -> Status> as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}
