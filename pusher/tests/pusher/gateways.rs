//! Gateways for tests.

use abi::v1::{
    DisconnectRequest, DisconnectResponse, PushRequest, PushResponse,
    gateway_service_server::{GatewayService, GatewayServiceServer},
};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::{Request, Response, Status};

/// How a gateway responds to a delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Behaviour {
    Accept,
    Fail,
    Hang,
}

/// A gateway behind a real listener.
pub(crate) struct Gateway {
    pub(crate) address: String,
    behaviour: Arc<Mutex<Behaviour>>,
    received: tokio::sync::Mutex<mpsc::Receiver<PushRequest>>,
    _server: JoinSet<()>,
}

struct Service {
    behaviour: Arc<Mutex<Behaviour>>,
    received: mpsc::Sender<PushRequest>,
}

impl Gateway {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, received) = mpsc::channel(64);
        let behaviour = Arc::new(Mutex::new(behaviour));
        let service =
            GatewayServiceServer::new(Service { behaviour: Arc::clone(&behaviour), received: sender })
                .max_decoding_message_size(32 << 20);
        let mut server = JoinSet::new();
        server.spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self { address, behaviour, received: tokio::sync::Mutex::new(received), _server: server }
    }

    /// The next push that arrived, whether or not the gateway accepted it.
    pub(crate) async fn received(&self) -> PushRequest {
        let mut received = self.received.lock().await;
        tokio::time::timeout(Duration::from_secs(10), received.recv()).await.unwrap().unwrap()
    }

    pub(crate) fn set(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }
}

#[tonic::async_trait]
impl GatewayService for Service {
    async fn deliver(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let push = request.into_inner();
        let connections = push.receivers.len() as u32;
        // The queue is full if the test does not read pushes.
        let _ = self.received.try_send(push);
        let behaviour = *self.behaviour.lock().unwrap();
        match behaviour {
            Behaviour::Accept => Ok(Response::new(PushResponse { connections })),
            Behaviour::Fail => Err(Status::unavailable("a test")),
            Behaviour::Hang => std::future::pending().await,
        }
    }

    async fn disconnect(
        &self,
        _: Request<DisconnectRequest>,
    ) -> Result<Response<DisconnectResponse>, Status> {
        Err(Status::unimplemented("pushers do not call this"))
    }
}

/// A new channel for every call: these tests are about the pusher, not about a pool of channels.
pub(crate) fn channel(address: &str) -> abi::Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let service = tower::ServiceBuilder::new().map_err(Into::into).service(endpoint.connect_lazy());
    tower::util::BoxCloneSyncService::new(service)
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
