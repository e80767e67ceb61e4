//! The one type of gRPC channel. Callers can't tell a remote service from one in their own process.

use tonic::{Status, body::Body};
use tower::util::BoxCloneSyncService;

/// A tower service that takes gRPC requests: a balanced stack, a single connection, or a server in this process.
///
/// Its errors are statuses, as those of the calls are. (A boxed error would do, but futures that call a generated client over
/// one can't be shown to be `Send`.)
pub type Channel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;
