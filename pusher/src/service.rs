//! `PushService`: routes, split, deliver.

use crate::{
    MAX_MESSAGE,
    metrics::{self, Outcome},
    rest::Rests,
    split,
};
use abi::{
    ApiError, Caller, Channel, Gateways,
    v1::{
        PushRequest, PushResponse,
        gateway_service_client::GatewayServiceClient,
        push_service_server::{PushService, PushServiceServer},
    },
};
use cache::Cache;
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};
use utils::trace::{Kind, Spans};

/// Name of this service in traces.
const SERVICE: &str = "pusher";

/// Finds the gateways of users and delivers to them.
pub struct Pusher {
    cache: Arc<dyn Cache>,
    gateways: Gateways,
    deadline: Duration,
    rests: Rests,
}

/// The service, over a cache that knows the routes and a way to reach gateways. A gateway has `deadline` for a delivery.
pub fn server(cache: Arc<dyn Cache>, gateways: Gateways, deadline: Duration) -> PushServiceServer<Pusher> {
    PushServiceServer::new(Pusher { cache, gateways, deadline, rests: Rests::default() })
        .max_decoding_message_size(MAX_MESSAGE)
}

impl Pusher {
    /// Delivers to one gateway. Whatever goes wrong stays here: others have theirs, and devices learn by heartbeat.
    async fn deliver(&self, gateway: Arc<str>, push: PushRequest, spans: &Spans) -> u32 {
        let began = Instant::now();
        let Some(deadline) = self.rests.deadline(&gateway, self.deadline) else {
            metrics::delivery(Outcome::Rested, Duration::ZERO);
            return 0;
        };
        let (outcome, connections) = match timeout(deadline, call((self.gateways)(&gateway), push, spans))
            .await
        {
            Ok(Ok(connections)) => {
                self.rests.answered(&gateway);
                (Outcome::Taken, connections)
            }
            // The channel's own deadline, should it be the shorter one.
            Ok(Err(status)) if status.code() == tonic::Code::DeadlineExceeded => {
                self.rests.late(&gateway);
                (Outcome::Late, 0)
            }
            Ok(Err(status)) => {
                self.rests.answered(&gateway);
                tracing::warn!(gateway = %gateway, code = ?status.code(), error = status.message(), "delivery failed");
                (Outcome::Failed, 0)
            }
            Err(_) => {
                self.rests.late(&gateway);
                (Outcome::Late, 0)
            }
        };
        if matches!(outcome, Outcome::Late) {
            tracing::warn!(gateway = %gateway, ?deadline, "the gateway did not answer a delivery in time");
        }
        metrics::delivery(outcome, began.elapsed());
        connections
    }
}

async fn call(channel: Channel, push: PushRequest, spans: &Spans) -> Result<u32, Status> {
    let messages = push.entries.iter().map(|entry| &*entry.message_id);
    let delivering = spans.children_among("deliver", Kind::Client, messages);
    let mut request = Request::new(push);
    delivering.inject(&mut request);
    let response = GatewayServiceClient::new(Caller::new(channel)).deliver(request).await?;
    delivering.finish();
    Ok(response.into_inner().connections)
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl PushService for Pusher {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let mut spans = Spans::extract(SERVICE, "push", request.metadata());
        let request = request.into_inner();
        let users = split::users(&request);
        spans.set("godwit.users", || count(users.len()));
        if users.is_empty() {
            return Ok(Response::new(PushResponse::default()));
        }
        let routes = self.cache.routes(&request.app, &users).await.map_err(ApiError::from)?;
        metrics::users(users.len(), routes.iter().filter(|gateways| !gateways.is_empty()).count());
        let pushes = split::split(request, &routes);
        spans.set("godwit.gateways", || count(pushes.len()));
        let deliveries = pushes.into_iter().map(|(gateway, push)| self.deliver(gateway, push, &spans));
        let connections = join_all(deliveries).await.into_iter().sum();
        spans.finish();
        Ok(Response::new(PushResponse { connections }))
    }
}

impl std::fmt::Debug for Pusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pusher").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
