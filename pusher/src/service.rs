//! `PushService`: looks up the routes of the receivers, splits the push, delivers the parts.

use crate::{
    MAX_MESSAGE,
    metrics::{self, Outcome},
    slow_gateways::SlowGateways,
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

/// Looks up the gateways of users and delivers to them.
pub struct Pusher {
    cache: Arc<dyn Cache>,
    gateways: Gateways,
    deadline: Duration,
    slow_gateways: SlowGateways,
}

/// The service. `cache` has the routes, `gateways` opens channels, and `deadline` limits one delivery to a gateway.
pub fn server(cache: Arc<dyn Cache>, gateways: Gateways, deadline: Duration) -> PushServiceServer<Pusher> {
    PushServiceServer::new(Pusher { cache, gateways, deadline, slow_gateways: SlowGateways::default() })
        .max_decoding_message_size(MAX_MESSAGE)
}

impl Pusher {
    /// Delivers to one gateway, and returns the number of connections that it reached. A failure is logged and counted, not
    /// returned: it must not affect other gateways, and devices find out about a missed delivery with their next heartbeat.
    async fn deliver(&self, gateway: Arc<str>, push: PushRequest, spans: &Spans) -> u32 {
        let began = Instant::now();
        let Some(deadline) = self.slow_gateways.deadline(&gateway, self.deadline) else {
            metrics::delivery(Outcome::Skipped, Duration::ZERO);
            return 0;
        };
        let answer = timeout(deadline, call((self.gateways)(&gateway), push, spans)).await;
        let (outcome, connections) = match answer {
            Ok(Ok(connections)) => {
                self.slow_gateways.answered(&gateway);
                (Outcome::Accepted, connections)
            }
            // The channel has a deadline as well, which may be shorter.
            Ok(Err(status)) if status.code() == tonic::Code::DeadlineExceeded => (Outcome::TimedOut, 0),
            Ok(Err(status)) => {
                self.slow_gateways.answered(&gateway);
                tracing::warn!(gateway = %gateway, code = ?status.code(), error = status.message(), "delivery failed");
                (Outcome::Failed, 0)
            }
            Err(_) => (Outcome::TimedOut, 0),
        };
        if matches!(outcome, Outcome::TimedOut) {
            self.slow_gateways.timed_out(&gateway);
            tracing::warn!(gateway = %gateway, ?deadline, "delivery timed out");
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

fn count(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl PushService for Pusher {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let mut spans = Spans::extract(SERVICE, "push", request.metadata());
        let request = request.into_inner();
        let users = split::users(&request);
        spans.set("godwit.users", || count(users.len()));
        let routes = match users.is_empty() {
            true => Vec::new(),
            false => self.cache.routes(&request.app, &users).await.map_err(ApiError::from)?,
        };
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
