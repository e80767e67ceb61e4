//! `GatewayService`: pushers deliver to the connections of this gateway, and other gateways close connections here.

use crate::{backend::Backend, hub::Hub, metrics, outcomes::Outcomes, trace};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{
        DisconnectRequest, DisconnectResponse, PushRequest, PushResponse,
        gateway_service_server::GatewayService,
    },
};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use utils::trace::Spans;

/// The connections of this gateway, over gRPC.
#[derive(Clone, Debug)]
pub struct Delivery {
    app: String,
    hub: Arc<Hub>,
    outcomes: Outcomes,
}

impl Delivery {
    pub(crate) fn new(backend: &Backend) -> Self {
        Self {
            app: backend.app().into(),
            hub: backend.connections().hub().clone(),
            outcomes: backend.outcomes().clone(),
        }
    }
}

#[tonic::async_trait]
impl GatewayService for Delivery {
    async fn deliver(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let spans = Spans::extract(trace::SERVICE, "deliver", request.metadata());
        let mut push = request.into_inner();
        if push.app != self.app {
            metrics::refused(ErrorCode::InvalidRequest);
            return Err(ApiError::invalid("this gateway serves another application").into());
        }
        let outcomes = std::mem::take(&mut push.outcomes);
        outcomes.into_iter().for_each(|outcome| self.outcomes.arrived(outcome));
        let connections = self.hub.deliver(push, &spans).await;
        spans.finish();
        Ok(Response::new(PushResponse { connections }))
    }

    async fn disconnect(
        &self,
        request: Request<DisconnectRequest>,
    ) -> Result<Response<DisconnectResponse>, Status> {
        let DisconnectRequest { session, user, replaced_by, .. } = request.into_inner();
        match replaced_by {
            0 => self.hub.revoke(&user, &session),
            order => self.hub.replace(&user, &session, order),
        }
        Ok(Response::new(DisconnectResponse {}))
    }
}
