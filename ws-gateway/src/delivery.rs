//! `GatewayService`: what pushers and other gateways ask of the connections here.

use crate::{
    backend::{Backend, revoked},
    hub::replaced_fault,
    metrics, trace,
};
use abi::v1::{
    DisconnectRequest, DisconnectResponse, PushRequest, PushResponse, gateway_service_server::GatewayService,
};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use utils::trace::Spans;

/// The connections of this gateway, over gRPC.
#[derive(Clone, Debug)]
pub struct Delivery(pub Arc<Backend>);

#[tonic::async_trait]
impl GatewayService for Delivery {
    async fn deliver(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let spans = Spans::extract(trace::SERVICE, "deliver", request.metadata());
        let push = request.into_inner();
        if push.app != self.0.app {
            metrics::refused(abi::error::ErrorCode::InvalidRequest);
            return Err(abi::ApiError::invalid("this gateway serves another application").into());
        }
        let connections = self.0.hub.deliver(push, &spans).await;
        spans.finish();
        Ok(Response::new(PushResponse { connections }))
    }

    async fn disconnect(
        &self,
        request: Request<DisconnectRequest>,
    ) -> Result<Response<DisconnectResponse>, Status> {
        let DisconnectRequest { session, user, replaced_at_ms, .. } = request.into_inner();
        match replaced_at_ms {
            0 => self.0.hub.disconnect(&user, &session, i64::MAX, &revoked()),
            opened_since => self.0.hub.disconnect(&user, &session, opened_since, &replaced_fault()),
        };
        Ok(Response::new(DisconnectResponse {}))
    }
}
