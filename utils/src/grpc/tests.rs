use super::*;
use crate::Readiness;
use std::sync::Arc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

/// A server of gRPC health whose answers the test decides.
pub(super) struct Fake<F>(pub(super) Arc<F>);

#[tonic::async_trait]
impl<F, Fut> Health for Fake<F>
where
    F: Fn(HealthCheckRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Status>> + Send,
{
    type WatchStream = futures_util::stream::Pending<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.0(request.into_inner()).await.map(|()| Response::new(HealthCheckResponse { status: 1 }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(futures_util::stream::pending()))
    }
}

pub(super) fn routes<F, Fut>(answer: F) -> Routes
where
    F: Fn(HealthCheckRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Status>> + Send + 'static,
{
    Routes::new(HealthServer::new(Fake(Arc::new(answer))))
}

pub(super) async fn check(channel: &crate::Channel) -> Result<(), Status> {
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.map(|_| ())
}

#[tokio::test]
async fn a_local_channel_is_the_server_itself() {
    let routes = routes(|request| async move {
        if request.service == "x" { Err(Status::not_found("no x")) } else { Ok(()) }
    });
    let channel = local(routes, Duration::from_secs(1));
    check(&channel).await.unwrap();
    let refused =
        HealthClient::new(channel).check(HealthCheckRequest { service: "x".into() }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (tonic::Code::NotFound, "no x"));
}

#[tokio::test(start_paused = true)]
async fn p7_a_local_call_that_hangs_ends_with_its_deadline() {
    let channel = local(routes(|_| std::future::pending()), Duration::from_secs(2));
    assert_eq!(check(&channel).await.unwrap_err().code(), tonic::Code::DeadlineExceeded);
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_millis(10));
    let start = tokio::time::Instant::now();
    assert_eq!(
        HealthClient::new(channel).check(request).await.unwrap_err().code(),
        tonic::Code::DeadlineExceeded
    );
    assert!(start.elapsed() < Duration::from_secs(1), "the call's own deadline goes first");
}

#[tokio::test]
async fn p9_a_server_tells_its_health_and_stops() {
    let readiness = Readiness::new();
    let latch = readiness.latch("test");
    let listener = bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let server = Server::new(Routes::default(), abi::DESCRIPTORS, readiness.clone());
    let served = tasks.spawn(server.serve(listener, stop.clone()));

    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let status = async |watch: &mut tonic::Streaming<HealthCheckResponse>| {
        watch.message().await.unwrap().expect("watch goes on").status()
    };
    use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
    while status(&mut watch).await != NotServing {}
    latch.ready();
    assert_eq!(status(&mut watch).await, Serving);
    readiness.begin_drain();
    assert_eq!(status(&mut watch).await, NotServing);

    drop((watch, client));
    stop.cancel();
    served.await.unwrap().unwrap();
}
