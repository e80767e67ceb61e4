//! The logs and Kafka clients of a runtime, shared by the addresses that name the same ones.

#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "kafka")]
mod kafka;

use crate::address::Address;
use crate::error::Error;
use crate::producer::Producer;
use crate::source::Source;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Backends {
    #[cfg(feature = "embedded")]
    logs: embedded::Logs,
    #[cfg(feature = "kafka")]
    kafka: kafka::Clients,
}

impl Backends {
    /// A new source for the group and topics of an address.
    pub(super) fn source(&mut self, address: &Address) -> Result<Arc<dyn Source>, Error> {
        #[cfg(feature = "embedded")]
        if let Some(source) = self.logs.source(address)? {
            return Ok(source);
        }
        #[cfg(feature = "kafka")]
        if let Some(source) = self.kafka.source(address)? {
            return Ok(source);
        }
        Err(Error::Closed)
    }

    /// The producer for an address, shared by addresses with the same settings.
    pub(super) fn producer(&mut self, address: &Address) -> Result<Arc<dyn Producer>, Error> {
        #[cfg(feature = "embedded")]
        if let Some(producer) = self.logs.producer(address)? {
            return Ok(producer);
        }
        #[cfg(feature = "kafka")]
        if let Some(producer) = self.kafka.producer(address)? {
            return Ok(producer);
        }
        Err(Error::Closed)
    }

    pub(super) fn producers(&self) -> Vec<Arc<dyn Producer>> {
        let mut producers = Vec::new();
        #[cfg(feature = "embedded")]
        producers.extend(self.logs.producers());
        #[cfg(feature = "kafka")]
        producers.extend(self.kafka.producers());
        producers
    }

    /// Creates missing topics and checks existing ones in Kafka. Those of the embedded log were created when it was opened.
    pub(super) async fn check_topics(&self) -> Result<(), Error> {
        #[cfg(feature = "kafka")]
        self.kafka.check_topics().await?;
        Ok(())
    }
}
