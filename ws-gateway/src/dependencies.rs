//! The services that a gateway calls, remote or in process.

use abi::{Caller, Channel, Gateways, v1::db_service_client::DbServiceClient};
use cache::Cache;
use kafka_runtime::Producer;
use std::{fmt, sync::Arc};

/// Largest gRPC response of db-service, in bytes. A page of history has about 1 MiB.
const MAX_RESPONSE: usize = 16 << 20;

/// A client of db-service.
pub(crate) type DbClient = DbServiceClient<Caller>;

/// The services that a gateway calls.
pub struct Dependencies {
    /// Channel to db-service.
    pub db: Channel,
    /// Channel to the pusher.
    pub push: Channel,
    /// Channels to other gateways.
    pub gateways: Gateways,
    /// Receivers' seq, routes and members of groups.
    pub cache: Arc<dyn Cache>,
    /// Writes to the log.
    pub producer: Arc<dyn Producer>,
}

impl Dependencies {
    pub(crate) fn db_client(&self) -> DbClient {
        DbServiceClient::new(Caller::new(self.db.clone())).max_decoding_message_size(MAX_RESPONSE)
    }
}

impl fmt::Debug for Dependencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dependencies").finish_non_exhaustive()
    }
}
