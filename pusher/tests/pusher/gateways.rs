//! Gateways to push to.

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

/// How a gateway meets a delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    Takes,
    Fails,
    Hangs,
}

/// A gateway behind a real listener.
pub(crate) struct Gateway {
    pub(crate) address: String,
    manner: Arc<Mutex<Manner>>,
    taken: tokio::sync::Mutex<mpsc::Receiver<PushRequest>>,
    _server: JoinSet<()>,
}

struct Service {
    manner: Arc<Mutex<Manner>>,
    taken: mpsc::Sender<PushRequest>,
}

impl Gateway {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, taken) = mpsc::channel(64);
        let manner = Arc::new(Mutex::new(manner));
        let service = GatewayServiceServer::new(Service { manner: Arc::clone(&manner), taken: sender })
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
        Self { address, manner, taken: tokio::sync::Mutex::new(taken), _server: server }
    }

    /// The next push that arrived, whatever became of it.
    pub(crate) async fn taken(&self) -> PushRequest {
        let mut taken = self.taken.lock().await;
        tokio::time::timeout(Duration::from_secs(10), taken.recv()).await.unwrap().unwrap()
    }

    pub(crate) fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

#[tonic::async_trait]
impl GatewayService for Service {
    async fn deliver(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let push = request.into_inner();
        let connections = push.receivers.len() as u32;
        // A test that does not look at pushes may leave them.
        let _ = self.taken.try_send(push);
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::Takes => Ok(Response::new(PushResponse { connections })),
            Manner::Fails => Err(Status::unavailable("a test")),
            Manner::Hangs => std::future::pending().await,
        }
    }

    async fn disconnect(
        &self,
        _: Request<DisconnectRequest>,
    ) -> Result<Response<DisconnectResponse>, Status> {
        Err(Status::unimplemented("not for pushers"))
    }
}

/// A channel of its own for every call: the pusher's rules are tested, not those of a pool.
pub(crate) fn channel(address: &str) -> abi::Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let service = tower::ServiceBuilder::new().map_err(Into::into).service(endpoint.connect_lazy());
    tower::util::BoxCloneSyncService::new(service)
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
