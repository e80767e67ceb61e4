//! The messages of the gRPC service and of the topic. In a proto file it would be
//!
//! ```protobuf
//! package todo.v1;
//! service Todo {
//!   rpc Add(AddRequest) returns (Item);
//!   rpc Complete(CompleteRequest) returns (google.protobuf.Empty);
//!   rpc List(google.protobuf.Empty) returns (ListResponse);
//! }
//! ```
//!
//! `tonic-prost-build` would generate all of this and more. Written by hand here, so that the example needs no build script.

use prost::{Message, Name};
use std::time::Duration;
use tonic::body::Body;
use tonic::codegen::http::{self, uri::PathAndQuery};
use tonic::transport::{Endpoint, Uri};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

pub(crate) const ADD: &str = "/todo.v1.Todo/Add";
pub(crate) const COMPLETE: &str = "/todo.v1.Todo/Complete";
pub(crate) const LIST: &str = "/todo.v1.Todo/List";

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AddRequest {
    #[prost(string, tag = "1")]
    pub(crate) title: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CompleteRequest {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

/// Ordered by age, oldest first.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) items: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Item {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) title: String,
    #[prost(bool, tag = "3")]
    pub(crate) is_done: bool,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "4")]
    pub(crate) added_ms: i64,
}

/// The event of a new item.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Added {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, tag = "2")]
    pub(crate) title: String,
}

/// The event of a completed item.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Completed {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
}

// An envelope names the type of its event with these.
impl Name for Added {
    const PACKAGE: &str = "todo.v1";
    const NAME: &str = "Added";
}

impl Name for Completed {
    const PACKAGE: &str = "todo.v1";
    const NAME: &str = "Completed";
}

/// Serves a unary call.
pub(crate) async fn unary<Q, A, F>(
    request: http::Request<Body>,
    answer: impl Fn(Q) -> F,
) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Future<Output = Result<A, Status>>,
{
    let service = tower::service_fn(|request: Request<Q>| {
        let answer = answer(request.into_inner());
        async { answer.await.map(Response::new) }
    });
    tonic::server::Grpc::new(ProstCodec::default()).unary(service, request).await
}

/// Calls a server and returns its answer.
pub(crate) async fn call<Q, A>(server: Uri, method: &'static str, request: Q) -> anyhow::Result<A>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let channel = Endpoint::from(server).timeout(Duration::from_secs(10)).connect().await?;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await?;
    let method = PathAndQuery::from_static(method);
    Ok(grpc.unary(Request::new(request), method, ProstCodec::default()).await?.into_inner())
}
