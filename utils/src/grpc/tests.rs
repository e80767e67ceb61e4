use super::*;
use crate::{Readiness, discovery::Addresses, testing::eventually};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

/// A gRPC health server with responses that the test chooses.
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
async fn a_local_channel_calls_the_server_directly() {
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
    assert!(start.elapsed() < Duration::from_secs(1), "the call's own deadline takes precedence");
}

#[tokio::test]
async fn p9_a_server_reports_its_health_and_stops() {
    let readiness = Readiness::new();
    let latch = readiness.latch("test");
    let listener = crate::listener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let server = Server::new(Routes::default(), abi::DESCRIPTORS, readiness.clone());
    let served = tasks.spawn(server.serve(listener, stop.clone()));

    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let mut client = HealthClient::new(endpoint.connect().await.unwrap());
    let mut watch = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let status = async |watch: &mut tonic::Streaming<HealthCheckResponse>| {
        watch.message().await.unwrap().expect("the watch continues").status()
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

/// A server on a port of its own.
struct Instance {
    address: String,
    calls: Arc<AtomicUsize>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Instance {
    /// Starts a server that responds after `delay`, with UNAVAILABLE while `is_failing`.
    async fn start(address: &str, delay: Duration, is_failing: Arc<AtomicBool>) -> Self {
        let listener = crate::listener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (calls, stop, tasks) =
            (Arc::new(AtomicUsize::new(0)), CancellationToken::new(), TaskTracker::new());
        let counter = calls.clone();
        let routes = routes(move |_| {
            counter.fetch_add(1, Relaxed);
            let fails = is_failing.load(Relaxed);
            async move {
                tokio::time::sleep(delay).await;
                if fails { Err(Status::unavailable("database unavailable")) } else { Ok(()) }
            }
        });
        let served = tonic::transport::Server::builder().add_routes(routes).serve_with_incoming_shutdown(
            tonic::transport::server::TcpIncoming::from(listener),
            stop.clone().cancelled_owned(),
        );
        tasks.spawn(served);
        Self { address, calls, stop, tasks }
    }

    async fn quick() -> Self {
        Self::start("127.0.0.1:0", Duration::ZERO, Arc::default()).await
    }

    fn calls(&self) -> usize {
        self.calls.load(Relaxed)
    }

    async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn addresses(instances: &[&Instance]) -> Addresses {
    instances.iter().map(|instance| (instance.address.clone(), String::new())).collect()
}

fn watched(instances: &[&Instance]) -> (watch::Sender<Addresses>, Channel) {
    let (sender, receiver) = watch::channel(addresses(instances));
    (sender, balanced("test", Instances::from_receiver(receiver), Options::default()))
}

#[tokio::test]
async fn p9_no_call_fails_when_one_of_two_instances_stops_and_is_ejected() {
    let (one, two) = (Instance::quick().await, Instance::quick().await);
    let (_sender, channel) = watched(&[&one, &two]);
    for _ in 0..50 {
        check(&channel).await.unwrap();
    }
    assert!(one.calls() > 0 && two.calls() > 0, "{} and {}", one.calls(), two.calls());
    one.stop().await;
    let start = std::time::Instant::now();
    for _ in 0..300 {
        check(&channel).await.unwrap();
    }
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "attempts on the stopped instance: {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn p6_an_unavailable_instance_is_ejected_and_used_again_when_it_recovers() {
    let is_failing = Arc::new(AtomicBool::new(true));
    let one = Instance::start("127.0.0.1:0", Duration::ZERO, is_failing.clone()).await;
    let two = Instance::quick().await;
    let (_sender, channel) = watched(&[&one, &two]);
    for _ in 0..200 {
        check(&channel).await.unwrap();
    }
    assert!(one.calls() <= 10, "called {} times while it failed", one.calls());
    is_failing.store(false, Relaxed);
    let before = one.calls();
    eventually(async || {
        check(&channel).await.unwrap();
        one.calls() > before + 10
    })
    .await;
}

#[tokio::test]
async fn a_restarted_instance_is_used_again() {
    let one = Instance::quick().await;
    let (_sender, channel) = watched(&[&one]);
    check(&channel).await.unwrap();
    one.stop().await;
    assert_eq!(check(&channel).await.unwrap_err().code(), tonic::Code::Unavailable);
    let again = Instance::start(&one.address, Duration::ZERO, Arc::default()).await;
    eventually(async || check(&channel).await.is_ok()).await;
    assert!(again.calls() > 0);
}

#[tokio::test]
async fn p9_the_balancer_applies_changes_of_the_set() {
    let (one, two) = (Instance::quick().await, Instance::quick().await);
    let (sender, channel) = watched(&[&one]);
    check(&channel).await.unwrap();
    sender.send_replace(addresses(&[&one, &two]));
    eventually(async || {
        check(&channel).await.unwrap();
        two.calls() > 0
    })
    .await;
    sender.send_replace(addresses(&[&two]));
    eventually(async || {
        let before = one.calls();
        for _ in 0..10 {
            check(&channel).await.unwrap();
        }
        one.calls() == before
    })
    .await;
}

#[tokio::test]
async fn p7_without_instances_a_call_fails_fast() {
    let (sender, channel) = watched(&[]);
    let start = std::time::Instant::now();
    let status = check(&channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // An instance that appears while the call waits receives it.
    let one = Instance::quick().await;
    let (answer, ()) = tokio::join!(check(&channel), async {
        sender.send_replace(addresses(&[&one]));
    });
    answer.unwrap();
}

#[tokio::test]
async fn the_faster_instance_gets_more_calls() {
    let quick = Instance::start("127.0.0.1:0", Duration::from_millis(1), Arc::default()).await;
    let slow = Instance::start("127.0.0.1:0", Duration::from_millis(30), Arc::default()).await;
    let (_sender, channel) = watched(&[&quick, &slow]);
    for _ in 0..100 {
        check(&channel).await.unwrap();
    }
    assert!(quick.calls() > slow.calls() * 5, "{} to {}", quick.calls(), slow.calls());
}

#[tokio::test]
async fn p7_an_instance_that_hangs_is_avoided_after_one_call() {
    let hanging = Instance::start("127.0.0.1:0", Duration::from_secs(3600), Arc::default()).await;
    let quick = Instance::quick().await;
    let (_sender, receiver) = watch::channel(addresses(&[&hanging, &quick]));
    let options = Options { deadline: Duration::from_millis(200), ..Options::default() };
    let channel = balanced("test", Instances::from_receiver(receiver), options);
    let mut failed = 0;
    for _ in 0..50 {
        if let Err(status) = check(&channel).await {
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
            failed += 1;
        }
    }
    assert!(failed <= 1, "{failed} calls hung");
}

#[tokio::test]
async fn p7_calls_beyond_the_limit_are_refused() {
    let slow = Instance::start("127.0.0.1:0", Duration::from_millis(300), Arc::default()).await;
    let instances = Instances::fixed([slow.address.clone()]);
    let channel = balanced("test", instances, Options { max_in_flight: 2, ..Options::default() });
    let calls = (0..5).map(|_| check(&channel));
    let answers = futures_util::future::join_all(calls).await;
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).map(|status| status.code()).collect();
    assert_eq!(refused, [tonic::Code::Unavailable; 3]);
}

#[tokio::test]
async fn a_keyed_channel_reaches_its_address_fails_fast_and_recovers() {
    let pool = KeyedPool::new("test", Duration::from_secs(2), Duration::from_secs(60), 10);
    let one = Instance::quick().await;
    check(&pool.get(&one.address)).await.unwrap();
    one.stop().await;
    eventually(async || check(&pool.get(&one.address)).await.is_err()).await;
    let status = check(&pool.get(&one.address)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let again = Instance::start(&one.address, Duration::ZERO, Arc::default()).await;
    eventually(async || check(&pool.get(&one.address)).await.is_ok()).await;
    assert!(again.calls() > 0);
    assert_eq!(check(&pool.get("nonsense")).await.unwrap_err().code(), tonic::Code::Unavailable);
}
