//! The one type of gRPC channel. Callers can't tell a remote service from one in their own process.

use tower::{BoxError, util::BoxCloneSyncService};

/// A tower service that takes gRPC requests: a balanced stack, a single connection, or a server in this process.
pub type Channel =
    BoxCloneSyncService<http::Request<tonic::body::Body>, http::Response<tonic::body::Body>, BoxError>;
